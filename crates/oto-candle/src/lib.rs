//! candle as a backend: interprets a tensor program.

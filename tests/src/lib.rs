//! Tests that cross rooms: browser, WASI, server.

//! The wire: messages, codec and handshake; no sockets.

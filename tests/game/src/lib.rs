//! Demo services: an ordinary gRPC game and its private-protocol ancestor.

//! gRPC over HTTP/2: the legs that a bridge speaks toward services.

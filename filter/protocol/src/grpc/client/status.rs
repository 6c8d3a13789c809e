//! How a call that was not answered in gRPC's own terms ended, in gRPC's terms.

use crate::call::Code;
use crate::grpc::reason::ErrorCode;

/// The code of an answer whose `:status` is not 200 and that has no `grpc-status`.
///
/// Source: gRPC's "HTTP to gRPC Status Code Mapping".
pub(super) const fn of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The code of a call whose stream the upstream reset.
///
/// Source: "Errors" in gRPC's PROTOCOL-HTTP2.
pub(super) const fn of_reset(code: ErrorCode) -> Code {
    match code {
        ErrorCode::RefusedStream => Code::Unavailable,
        ErrorCode::Cancel => Code::Cancelled,
        ErrorCode::EnhanceYourCalm => Code::ResourceExhausted,
        ErrorCode::InadequateSecurity => Code::PermissionDenied,
        ErrorCode::Http11Required | ErrorCode::Unknown(_) => Code::Unknown,
        ErrorCode::NoError
        | ErrorCode::ProtocolError
        | ErrorCode::InternalError
        | ErrorCode::FlowControlError
        | ErrorCode::SettingsTimeout
        | ErrorCode::StreamClosed
        | ErrorCode::FrameSizeError
        | ErrorCode::CompressionError
        | ErrorCode::ConnectError => Code::Internal,
    }
}

/// What to tell a person about a stream that the upstream reset.
pub(super) const fn reset_message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NoError => "upstream reset the stream: NO_ERROR",
        ErrorCode::ProtocolError => "upstream reset the stream: PROTOCOL_ERROR",
        ErrorCode::InternalError => "upstream reset the stream: INTERNAL_ERROR",
        ErrorCode::FlowControlError => "upstream reset the stream: FLOW_CONTROL_ERROR",
        ErrorCode::SettingsTimeout => "upstream reset the stream: SETTINGS_TIMEOUT",
        ErrorCode::StreamClosed => "upstream reset the stream: STREAM_CLOSED",
        ErrorCode::FrameSizeError => "upstream reset the stream: FRAME_SIZE_ERROR",
        ErrorCode::RefusedStream => "upstream refused the stream",
        ErrorCode::Cancel => "upstream cancelled the stream",
        ErrorCode::CompressionError => "upstream reset the stream: COMPRESSION_ERROR",
        ErrorCode::ConnectError => "upstream reset the stream: CONNECT_ERROR",
        ErrorCode::EnhanceYourCalm => "upstream reset the stream: ENHANCE_YOUR_CALM",
        ErrorCode::InadequateSecurity => "upstream reset the stream: INADEQUATE_SECURITY",
        ErrorCode::Http11Required => "upstream reset the stream: HTTP_1_1_REQUIRED",
        ErrorCode::Unknown(_) => "upstream reset the stream with an unknown error code",
    }
}

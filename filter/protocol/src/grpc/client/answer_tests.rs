use super::*;
use crate::grpc::hpack::encoder;

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        encoder::encode_shortest(name, value.as_bytes(), &mut out);
    }
    out
}

const OK: (&str, &str) = (":status", "200");
const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Judged twice: what is remembered must say the same.
fn head(fields: &[(&str, &str)], end: bool) -> (Verdict, String) {
    let mut answers = Answers::new(16_384);
    let verdict = answers.head(&block(fields), end).unwrap();
    assert_eq!(answers.head(&block(fields), end).unwrap(), verdict);
    (verdict, answers.text)
}

fn trailers(fields: &[(&str, &str)]) -> (Verdict, String) {
    let mut answers = Answers::new(16_384);
    let verdict = answers.trailers(&block(fields)).unwrap();
    assert_eq!(answers.trailers(&block(fields)).unwrap(), verdict);
    (verdict, answers.text)
}

#[test]
fn a_grpc_response_is_answered() {
    assert_eq!(head(&[OK, GRPC], false).0, Verdict::Answering(None));
    assert_eq!(
        head(&[OK, ("content-type", "application/grpc+proto")], false).0,
        Verdict::Answering(None)
    );
    assert_eq!(
        head(&[OK, ("content-type", "application/grpc;x=y")], false).0,
        Verdict::Answering(None)
    );
    assert_eq!(head(&[OK], false).0, Verdict::Answering(None));
}

#[test]
fn trailers_carry_code_and_decoded_message() {
    assert_eq!(trailers(&[("grpc-status", "0")]).0, Verdict::End(Code::Ok, Text::Static("")));
    let said = trailers(&[("grpc-status", "5"), ("grpc-message", "no%20such %e2%82%ac 100%, %f")]);
    assert_eq!(said, (Verdict::End(Code::NotFound, Text::Decoded), "no such € 100%, %f".into()));
    let said = trailers(&[("grpc-message", "%ff"), ("grpc-status", "13")]);
    assert_eq!(said, (Verdict::End(Code::Internal, Text::Decoded), "\u{fffd}".into()));
}

#[test]
fn a_message_is_not_carried_over_to_the_next_call() {
    let mut answers = Answers::new(16_384);
    let with = block(&[("grpc-status", "5"), ("grpc-message", "a")]);
    let without = block(&[("grpc-status", "5")]);
    for _ in 0..2 {
        assert_eq!(answers.trailers(&with).unwrap(), Verdict::End(Code::NotFound, Text::Decoded));
        let bare = Verdict::End(Code::NotFound, Text::Static(""));
        assert_eq!(answers.trailers(&without).unwrap(), bare);
    }
}

#[test]
fn a_message_is_decoded_again_when_another_came_between() {
    let mut answers = Answers::new(16_384);
    let said = block(&[("grpc-status", "5"), ("grpc-message", "none")]);
    for _ in 0..2 {
        assert_eq!(answers.trailers(&said).unwrap(), Verdict::End(Code::NotFound, Text::Decoded));
        assert_eq!(answers.text(), "none");
        answers.head(&block(&[(":status", "503")]), false).unwrap();
        assert_eq!(answers.text(), "response with HTTP status 503");
    }
}

#[test]
fn long_blocks_are_not_remembered() {
    let mut answers = Answers::new(16_384);
    let long = block(&[("grpc-status", "0"), ("x", &"y".repeat(5000))]);
    assert_eq!(answers.trailers(&long).unwrap(), Verdict::End(Code::Ok, Text::Static("")));
    assert!(answers.trailers.block.capacity() <= MAX_REMEMBERED);
}

#[test]
fn a_block_of_the_other_kind_is_not_mistaken_for_a_remembered_one() {
    let mut answers = Answers::new(16_384);
    let both = block(&[("grpc-status", "0")]);
    assert_eq!(answers.trailers(&both).unwrap(), Verdict::End(Code::Ok, Text::Static("")));
    assert!(matches!(answers.head(&both, true).unwrap(), Verdict::Malformed(_)));
}

#[test]
fn trailers_only_end_the_call() {
    assert_eq!(
        head(&[OK, GRPC, ("grpc-status", "12")], true).0,
        Verdict::End(Code::Unimplemented, Text::Static(""))
    );
    let unavailable = head(&[(":status", "503"), GRPC, ("grpc-status", "8")], true).0;
    assert_eq!(unavailable, Verdict::End(Code::ResourceExhausted, Text::Static("")));
}

#[test]
fn a_missing_or_wrong_grpc_status_is_unknown() {
    let unknown = |verdict| matches!(verdict, Verdict::End(Code::Unknown, Text::Static(_)));
    assert!(unknown(head(&[OK, GRPC], true).0));
    assert!(unknown(trailers(&[]).0));
    for wrong in ["", "abc", "-1", "+1", "1 ", "17", "99999999999999999999"] {
        assert!(unknown(trailers(&[("grpc-status", wrong)]).0), "{wrong:?}");
    }
}

#[test]
fn http_statuses_are_mapped_by_grpcs_table() {
    let table = [
        ("400", Code::Internal),
        ("401", Code::Unauthenticated),
        ("403", Code::PermissionDenied),
        ("404", Code::Unimplemented),
        ("429", Code::Unavailable),
        ("502", Code::Unavailable),
        ("503", Code::Unavailable),
        ("504", Code::Unavailable),
        ("418", Code::Unknown),
        ("302", Code::Unknown),
        ("204", Code::Unknown),
        ("500", Code::Unknown),
    ];
    for (status, code) in table {
        for end in [false, true] {
            let (verdict, text) = head(&[(":status", status), ("content-type", "text/html")], end);
            assert_eq!(verdict, Verdict::End(code, Text::Decoded), "{status}");
            assert_eq!(text, format!("response with HTTP status {status}"));
        }
    }
}

#[test]
fn a_foreign_content_type_is_no_answer() {
    for kind in ["text/html", "application/grpc-web", "application/grpcx", ""] {
        let verdict = head(&[OK, ("content-type", kind), ("grpc-status", "0")], true).0;
        assert!(matches!(verdict, Verdict::End(Code::Unknown, Text::Static(_))), "{kind}");
    }
}

#[test]
fn informational_responses_are_passed_over_unless_they_end_the_stream() {
    assert_eq!(head(&[(":status", "100")], false).0, Verdict::Informational);
    assert_eq!(head(&[(":status", "103"), ("link", "x")], false).0, Verdict::Informational);
    assert!(matches!(head(&[(":status", "100")], true).0, Verdict::Malformed(_)));
    assert!(matches!(head(&[(":status", "101")], false).0, Verdict::Malformed(_)));
}

#[test]
fn malformed_responses_are_seen() {
    let flawed: [&[(&str, &str)]; 14] = [
        &[GRPC],
        &[OK, OK],
        &[GRPC, OK],
        &[(":status", "20")],
        &[(":status", "2000")],
        &[(":status", "0x2")],
        &[(":status", "099")],
        &[OK, (":path", "/")],
        &[OK, ("Content-Type", "x")],
        &[OK, ("", "x")],
        &[OK, ("a b", "x")],
        &[OK, ("a", "x\r\ny: z")],
        &[OK, ("connection", "close")],
        &[OK, ("transfer-encoding", "chunked")],
    ];
    for fields in flawed {
        assert!(matches!(head(fields, false).0, Verdict::Malformed(_)), "{fields:?}");
    }
    assert!(matches!(trailers(&[OK, ("grpc-status", "0")]).0, Verdict::Malformed(_)));
}

#[test]
fn a_list_above_the_limit_is_too_large_though_its_block_is_small() {
    let mut answers = Answers::new(1000);
    // Indexed fields of one byte each; every one counts at least 32.
    let mut many = block(&[OK]);
    many.extend([0xa0; 30]);
    assert_eq!(answers.head(&many, false).unwrap(), Verdict::TooLarge);
    assert_eq!(answers.head(&block(&[OK, GRPC]), false).unwrap(), Verdict::Answering(None));
}

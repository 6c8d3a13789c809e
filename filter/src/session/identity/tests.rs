use super::*;

fn id() -> SessionId {
    SessionId::from_slice(&[0xa5; 16]).unwrap()
}

fn by(user: &str, claims: &[(&str, &str)], roles: &[&str]) -> NamedBy {
    NamedBy {
        session: id(),
        user: user.to_owned(),
        claims: claims
            .iter()
            .map(|(name, value)| (String::from(*name), String::from(*value)))
            .collect(),
        roles: roles.iter().map(|role| String::from(*role)).collect(),
    }
}

/// Reads a block back by the rules of RFC 7541, the other way round and written apart from them.
fn read(mut block: &[u8]) -> Vec<(String, String)> {
    fn string(block: &mut &[u8]) -> String {
        let first = block[0];
        assert_eq!(first & 0x80, 0, "Huffman-coded");
        let mut len = usize::from(first);
        let mut at = 1;
        if len == 127 {
            let mut shift = 0;
            loop {
                let byte = block[at];
                at += 1;
                len += usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let text = String::from_utf8(block[at..at + len].to_vec()).unwrap();
        *block = &block[at + len..];
        text
    }
    let mut fields = Vec::new();
    while let Some((first, rest)) = block.split_first() {
        assert_eq!(*first, 0, "not a literal without indexing and with a new name");
        block = rest;
        let name = string(&mut block);
        fields.push((name, string(&mut block)));
    }
    fields
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_block_is_literals_in_plain_ascii() {
    let policy = MetadataPolicy { peer: false, session: false, ..MetadataPolicy::default() };
    let identity = Identity::named(by("ann", &[], &[]), &policy, "").unwrap();
    assert_eq!(identity.metadata(), b"\x00\x0fx-meshgate-user\x03ann");
}

#[test]
fn services_learn_what_the_policy_says() {
    let mut policy = MetadataPolicy::new(["Level", "guild.name", "absent"]).unwrap();
    policy.roles = true;
    let who =
        by("ann", &[("Level", "7"), ("guild.name", "Otters"), ("secret", "x")], &["gm", "vip"]);
    let identity = Identity::named(who, &policy, "203.0.113.7:40112").unwrap();
    let mut fields = read(identity.metadata());
    fields.sort();
    let expected = [
        ("x-meshgate-claim-guild.name", "Otters"),
        ("x-meshgate-claim-level", "7"),
        ("x-meshgate-peer", "203.0.113.7:40112"),
        ("x-meshgate-roles", "gm,vip"),
        ("x-meshgate-session", "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"),
        ("x-meshgate-user", "ann"),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn what_is_switched_off_is_not_told() {
    let off =
        MetadataPolicy { peer: false, session: false, user: false, ..MetadataPolicy::default() };
    let identity = Identity::named(by("ann", &[("level", "7")], &["gm"]), &off, "peer").unwrap();
    assert_eq!(identity.metadata(), b"");
    assert_eq!(identity.user(), Some("ann"), "it is known all the same");
    assert_eq!(Identity::anonymous(&off, "peer").metadata(), b"");
}

#[test]
fn of_someone_anonymous_the_address_is_told_alone() {
    let identity = Identity::anonymous(&MetadataPolicy::default(), "[2001:db8::1]:4711");
    let expected = [("x-meshgate-peer".to_owned(), "[2001:db8::1]:4711".to_owned())];
    assert_eq!(read(identity.metadata()), expected);
    assert!(identity.is_anonymous());
    assert_eq!((identity.session(), identity.user(), identity.claim("level")), (None, None, None));
    assert!(identity.roles().is_empty());
}

#[test]
fn an_address_that_is_none_is_left_out() {
    let policy = MetadataPolicy::default();
    assert_eq!(Identity::anonymous(&policy, "a\r\nb").metadata(), b"");
    let identity = Identity::named(by("ann", &[], &[]), &policy, "a\0b").unwrap();
    assert_eq!(field(&read(identity.metadata()), PEER), None);
}

#[test]
fn values_are_encoded_so_that_they_can_be_told_apart() {
    for (value, encoded) in [
        ("ann", "ann"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("jürgen", "j%C3%BCrgen"),
        ("玩家", "%E7%8E%A9%E5%AE%B6"),
        (" ann ", "%20ann%20"),
        ("ann lee", "ann lee"),
        (" ", "%20"),
        ("", ""),
        ("a,b;c=\"d\"", "a,b;c=\"d\""),
    ] {
        let identity =
            Identity::named(by(value, &[], &[]), &MetadataPolicy::default(), "peer").unwrap();
        let fields = read(identity.metadata());
        assert_eq!(field(&fields, USER), Some(encoded));
        assert_eq!(decoded(encoded), value);
    }
}

#[test]
fn a_comma_in_a_role_does_not_make_two_of_it() {
    let policy = MetadataPolicy { roles: true, ..MetadataPolicy::default() };
    let identity = Identity::named(by("ann", &[], &["gm", "a,b"]), &policy, "").unwrap();
    assert_eq!(field(&read(identity.metadata()), ROLES), Some("gm,a%2Cb"));
}

#[test]
fn a_control_character_anywhere_refuses_the_login() {
    let mut policy = MetadataPolicy::new(["level"]).unwrap();
    policy.roles = true;
    for bad in ["\0", "a\nb", "a\r\nx-meshgate-user: root", "\u{7f}", "\u{85}"] {
        for who in
            [by(bad, &[], &[]), by("ann", &[("level", bad)], &[]), by("ann", &[], &["gm", bad])]
        {
            let error = Identity::named(who, &policy, "").unwrap_err();
            assert!(matches!(error, IdentityError::Control(_)), "{bad:?}: {error}");
        }
    }
}

#[test]
fn claims_that_nobody_gets_to_see_may_be_anything() {
    let who = by("ann", &[("notes", "two\nlines"), ("long", &"x".repeat(50_000))], &["a\nb"]);
    let identity = Identity::named(who, &MetadataPolicy::default(), "").unwrap();
    assert_eq!(identity.claim("notes"), Some("two\nlines"));
}

#[test]
fn a_value_may_be_so_long_and_no_longer() {
    let policy = MetadataPolicy::new(["a"]).unwrap();
    for (len, fits) in
        [(126, true), (127, true), (128, true), (MAX_VALUE, true), (MAX_VALUE + 1, false)]
    {
        let value = "x".repeat(len);
        let identity = Identity::named(by("ann", &[("a", &value)], &[]), &policy, "");
        assert_eq!(identity.is_ok(), fits, "{len}");
        if let Ok(identity) = identity {
            let fields = read(identity.metadata());
            assert_eq!(field(&fields, "x-meshgate-claim-a"), Some(value.as_str()));
        }
    }
}

#[test]
fn all_values_together_may_be_so_long_and_no_longer() {
    let names: Vec<String> = (0..7).map(|number| format!("c{number}")).collect();
    let policy = MetadataPolicy::new(&names).unwrap();
    let value = "x".repeat(MAX_VALUE);
    let claims: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    assert!(Identity::named(by("ann", &claims[..5], &[]), &policy, "").is_ok());
    let error = Identity::named(by("ann", &claims, &[]), &policy, "").unwrap_err();
    assert_eq!(error, IdentityError::TooMuch);
}

#[test]
fn a_policys_errors_say_which_claim_and_what_would_be_right() {
    let error = |claims: &[&str]| MetadataPolicy::new(claims).unwrap_err();
    assert_eq!(error(&["ok", ""]), (1, PolicyError::Name(String::new())));
    assert!(error(&["a b"]).1.to_string().contains("expected up to 64 of the letters a-z"));
    assert!(MetadataPolicy::new(["x".repeat(65)]).is_err());
    assert_eq!(
        error(&["Level", "level"]),
        (1, PolicyError::Twice("x-meshgate-claim-level".to_owned()))
    );
    let many: Vec<String> = (0..=MAX_CLAIMS).map(|number| number.to_string()).collect();
    assert_eq!(MetadataPolicy::new(&many).unwrap_err(), (MAX_CLAIMS, PolicyError::TooMany));
}

#[test]
fn nothing_of_a_credential_is_printed_but_who_it_is() {
    let identity =
        Identity::named(by("ann", &[("email", "a@b")], &[]), &MetadataPolicy::default(), "")
            .unwrap();
    assert_eq!(format!("{identity:?}"), "Identity(a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5, \"ann\")");
}

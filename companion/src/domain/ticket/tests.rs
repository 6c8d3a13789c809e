use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn payload() -> Payload {
    let now = NOW.seconds();
    Payload {
        kid: String::new(),
        alg: Algorithm::EdDsa,
        sub: "ada".into(),
        aud: "game".into(),
        iat: now,
        nbf: now,
        exp: now + 60,
        jti: "t-1".into(),
        roles: vec!["player".into()],
        claims: BTreeMap::from([("zone".into(), "7".into())]),
        once: false,
    }
}

fn ring(keys: &[Key]) -> TicketKeys {
    TicketKeys::new(keys).unwrap()
}

fn both() -> [Key; 2] {
    [Kind::TicketEd25519, Kind::TicketHmac].map(|kind| Key::generate(kind, None).unwrap())
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/session/ticket.json");

/// A ticket for login servers in other languages to compare theirs with.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    /// Hexadecimal: an Ed25519 seed, or an HMAC key.
    key: String,
    /// Hexadecimal; empty for an HMAC key.
    public_key: String,
    /// What the ticket's first part holds, before base64url.
    payload: String,
    ticket: String,
    /// What it is presented for, and when (seconds since the Unix epoch).
    audience: String,
    now: u64,
    /// `accepted`, or why not.
    result: String,
}

fn vectors() -> Vec<Vector> {
    let key = |kind, id: &str, byte| {
        Key::new(id, kind, crate::domain::secret::Secret::new(vec![byte; 32])).unwrap()
    };
    let (ed, mac) = (Kind::TicketEd25519, Kind::TicketHmac);
    let plain = Payload { roles: vec![], claims: BTreeMap::new(), ..payload() };
    let once = Payload { once: true, sub: "Łukasz".into(), ..payload() };
    [
        ("Ed25519", key(ed, "ed-1", 0x11), payload(), "game", 0),
        ("HMAC-SHA256", key(mac, "mac-1", 0x22), payload(), "game", 0),
        ("no roles, no claims", key(ed, "ed-1", 0x11), plain, "game", 59),
        ("a single time, a name beyond ASCII", key(mac, "mac-1", 0x22), once, "game", 0),
        ("expired", key(ed, "ed-1", 0x11), payload(), "game", 60),
        ("another audience", key(mac, "mac-1", 0x22), payload(), "shop", 0),
    ]
    .into_iter()
    .map(|(name, key, payload, audience, later)| {
        let ticket = Issuer::new(&key).unwrap().issue(payload);
        let json = URL_SAFE_NO_PAD.decode(ticket.split('.').nth(1).unwrap()).unwrap();
        let now = UnixMillis::from_seconds(NOW.seconds() + later);
        let result = match ring(std::slice::from_ref(&key)).verify(&ticket, audience, now) {
            Ok(_) => "accepted".to_owned(),
            Err(why) => why.to_string(),
        };
        let hex = |key: &Key| crate::domain::key::hex(key.bytes().expose());
        Vector {
            name: name.into(),
            key: hex(&key),
            public_key: key.public().map(|key| hex(&key)).unwrap_or_default(),
            payload: String::from_utf8(json).unwrap(),
            ticket,
            audience: audience.into(),
            now: now.seconds(),
            result,
        }
    })
    .collect()
}

/// `MESHGATE_REGENERATE=1` writes them anew.
#[test]
fn tickets_are_those_of_the_test_vectors() {
    let made = vectors();
    if std::env::var_os("MESHGATE_REGENERATE").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::write(VECTORS, text).unwrap();
    }
    let kept: Vec<Vector> = serde_json::from_slice(&std::fs::read(VECTORS).unwrap()).unwrap();
    assert_eq!(made, kept);
}

#[test]
fn a_genuine_ticket_gives_its_identity() {
    for key in both() {
        let ticket = Issuer::new(&key).unwrap().issue(payload());
        let verified = ring(&[key]).verify(&ticket, "game", NOW).unwrap();
        assert_eq!(verified.identity.user, "ada");
        assert_eq!(verified.identity.roles, ["player"]);
        assert_eq!(verified.identity.claims.get("zone").map(String::as_str), Some("7"));
        assert!(!verified.once);
    }
}

#[test]
fn the_public_half_of_an_ed25519_key_is_enough_to_check() {
    let key = Key::generate(Kind::TicketEd25519, None).unwrap();
    let ticket = Issuer::new(&key).unwrap().issue(payload());
    assert!(ring(&[key.public().unwrap()]).verify(&ticket, "game", NOW).is_ok());
    assert!(matches!(Issuer::new(&key.public().unwrap()), Err(TicketKeyError::CannotSign { .. })));
}

#[test]
fn changing_any_byte_of_a_ticket_makes_it_worthless() {
    for key in both() {
        let ticket = Issuer::new(&key).unwrap().issue(payload());
        let ring = ring(&[key]);
        for at in 0..ticket.len() {
            let mut bytes = ticket.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).unwrap();
            assert!(ring.verify(&forged, "game", NOW).is_err(), "byte {at}");
        }
    }
}

#[test]
fn every_shortened_ticket_is_refused() {
    let key = Key::generate(Kind::TicketHmac, None).unwrap();
    let ticket = Issuer::new(&key).unwrap().issue(payload());
    let ring = ring(&[key]);
    for length in 0..ticket.len() {
        assert!(ring.verify(&ticket[..length], "game", NOW).is_err(), "{length} bytes");
    }
}

#[test]
fn times_and_audience_are_judged_after_the_signature() {
    let key = Key::generate(Kind::TicketEd25519, None).unwrap();
    let issuer = Issuer::new(&key).unwrap();
    let ring = ring(&[key]);
    let late = NOW.after(std::time::Duration::from_secs(60));
    let ticket = issuer.issue(payload());
    assert_eq!(ring.verify(&ticket, "game", late).unwrap_err(), Why::Expired);
    assert_eq!(ring.verify(&ticket, "shop", NOW).unwrap_err(), Why::WrongAudience);
    let early = issuer.issue(Payload { nbf: NOW.seconds() + 3600, ..payload() });
    assert_eq!(ring.verify(&early, "game", NOW).unwrap_err(), Why::NotYetValid);

    // Expired and forged: only "forged" may show.
    let forged = ticket.replacen("mgt1.e", "mgt1.f", 1);
    assert_ne!(ring.verify(&forged, "game", late).unwrap_err(), Why::Expired);
}

#[test]
fn the_key_decides_the_algorithm() {
    let ed = Key::generate(Kind::TicketEd25519, Some("k".into())).unwrap();
    let public = ed.public().unwrap();
    // The classic confusion: the public key taken for an HMAC key.
    let confused = Key::new("k", Kind::TicketHmac, public.bytes().clone()).unwrap();
    let ticket = Issuer::new(&confused).unwrap().issue(payload());
    assert_eq!(ring(&[ed]).verify(&ticket, "game", NOW).unwrap_err(), Why::WrongAlgorithm);
}

#[test]
fn unknown_keys_and_foreign_signatures_look_alike_to_the_client() {
    let [mine, theirs] =
        [(); 2].map(|()| Key::generate(Kind::TicketEd25519, Some("k".into())).unwrap());
    let ticket = Issuer::new(&theirs).unwrap().issue(payload());
    let unknown = TicketKeys::default().verify(&ticket, "game", NOW).unwrap_err();
    let foreign = ring(&[mine]).verify(&ticket, "game", NOW).unwrap_err();
    assert_eq!((unknown, foreign), (Why::UnknownKey, Why::BadSignature));
    assert_eq!(unknown.refusal().text(), foreign.refusal().text());
}

#[test]
fn two_keys_with_one_id_are_refused() {
    let keys = [(); 2].map(|()| Key::generate(Kind::TicketHmac, Some("k".into())).unwrap());
    assert!(matches!(TicketKeys::new(&keys), Err(TicketKeyError::DuplicateId(_))));
}

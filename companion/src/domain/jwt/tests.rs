use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// An issuer's key, as the issuer has it and as the companion gets it.
struct Issuer {
    jwk: Value,
    sign: Sign,
}

impl Issuer {
    fn hs256(kid: &str) -> Self {
        let secret = [7; 32];
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        Self {
            jwk: json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": b64(secret)}),
            sign: Box::new(move |message| ring::hmac::sign(&key, message).as_ref().to_vec()),
        }
    }

    fn ed25519(kid: &str) -> Self {
        let key = SigningKey::from_bytes(&[9; 32]);
        let x = b64(key.verifying_key().as_bytes());
        Self {
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x}),
            sign: Box::new(move |message| key.sign(message).to_bytes().to_vec()),
        }
    }

    fn es256(kid: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid,
            "x": b64(x), "y": b64(y)});
        let sign = move |message: &[u8]| key.sign(&random, message).unwrap().as_ref().to_vec();
        Self { jwk, sign: Box::new(sign) }
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.jwk["alg"], "kid": self.jwk["kid"]}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let body = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = (self.sign)(body.as_bytes());
        format!("{body}.{}", b64(signature))
    }
}

fn keys(issuers: &[&Issuer], names: &[&str]) -> JwtKeys {
    let set = json!({"keys": issuers.iter().map(|issuer| &issuer.jwk).collect::<Vec<_>>()});
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    JwtKeys::new([set.to_string().as_bytes()], names).unwrap()
}

fn claims() -> Value {
    json!({
        "sub": "ada", "aud": "game", "exp": NOW.seconds() + 60, "nbf": NOW.seconds(),
        "iss": "https://login.example", "jti": "j-1", "roles": ["player"],
        "zone": "7", "level": 12, "beta": true, "nested": {"a": 1}
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn genuine_tokens_of_each_algorithm_give_their_identity() {
    let issuers = [Issuer::hs256("h"), Issuer::ed25519("e"), Issuer::es256("p")];
    let keys = keys(&issuers.each_ref(), &["https://login.example"]);
    for issuer in &issuers {
        let verified = keys.verify(&issuer.token(&claims()), "game", NOW).unwrap();
        let Identity { user, roles, claims } = verified.identity;
        assert_eq!((user.as_str(), roles), ("ada", vec!["player".to_owned()]));
        let claims: Vec<_> = claims.into_iter().collect();
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(claims, [text("beta", "true"), text("level", "12"), text("zone", "7")]);
    }
}

#[test]
fn an_rs256_signature_is_checked() {
    // RFC 7515, appendix A.2: a signed token with a key, but without our required claims.
    let jwk = json!({"kty": "RSA", "alg": "RS256", "e": "AQAB", "n":
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0\
         Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS\
         5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7\
         aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let jwk = jwk.to_string().replace("         ", "");
    let keys = JwtKeys::new([jwk.as_bytes()], Vec::new()).unwrap();
    let token = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5\
        jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1\
        L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYE\
        UipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    // The signature is good, so it is the claims that are found wanting.
    assert_eq!(keys.verify(token, "game", NOW).unwrap_err(), Why::Malformed);
    let forged = token.replacen("eyJpc3Mi", "eyJpc3Ni", 1);
    assert_eq!(keys.verify(&forged, "game", NOW).unwrap_err(), Why::BadSignature);
}

#[test]
fn the_key_decides_the_algorithm() {
    let ed = Issuer::ed25519("k");
    let keys = keys(&[&ed], &[]);
    // `none`, and the public key taken for an HMAC secret.
    let none = format!("{}.{}.", b64(r#"{"alg":"none","kid":"k"}"#), b64(claims().to_string()));
    assert_eq!(keys.verify(&none, "game", NOW).unwrap_err(), Why::Malformed);
    let public = URL_SAFE_NO_PAD.decode(ed.jwk["x"].as_str().unwrap()).unwrap();
    let confused = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
    let forger = Issuer {
        jwk: json!({"alg": "HS256", "kid": "k"}),
        sign: Box::new(move |message| ring::hmac::sign(&confused, message).as_ref().to_vec()),
    };
    let token = forger.token(&claims());
    assert_eq!(keys.verify(&token, "game", NOW).unwrap_err(), Why::WrongAlgorithm);
}

#[test]
fn audience_issuer_times_and_user_are_required() {
    let issuer = Issuer::ed25519("k");
    let keys = keys(&[&issuer], &["https://login.example"]);
    let refused =
        |claims: Value| keys.verify(&issuer.token(&claims), "game", NOW).map(drop).unwrap_err();
    assert_eq!(refused(with("aud", json!("shop"))), Why::WrongAudience);
    assert_eq!(refused(without("aud")), Why::WrongAudience);
    assert_eq!(refused(with("iss", json!("https://evil.example"))), Why::WrongIssuer);
    assert_eq!(refused(without("iss")), Why::WrongIssuer);
    assert_eq!(refused(with("exp", json!(NOW.seconds()))), Why::Expired);
    assert_eq!(refused(with("nbf", json!(NOW.seconds() + 3600))), Why::NotYetValid);
    assert_eq!(refused(without("exp")), Why::Malformed);
    assert_eq!(refused(without("sub")), Why::Malformed);
    assert_eq!(refused(with("sub", json!("a\nb"))), Why::UnacceptableIdentity);
    let several = issuer.token(&with("aud", json!(["shop", "game"])));
    assert!(keys.verify(&several, "game", NOW).is_ok());
}

#[test]
fn tampered_and_foreign_tokens_are_refused() {
    let (mine, other) = (Issuer::es256("k"), Issuer::es256("k"));
    let keys = keys(&[&mine], &[]);
    let foreign = other.token(&claims());
    assert_eq!(keys.verify(&foreign, "game", NOW).unwrap_err(), Why::BadSignature);
    let unknown = mine.token_with(&json!({"alg": "ES256", "kid": "x"}), &claims());
    assert_eq!(keys.verify(&unknown, "game", NOW).unwrap_err(), Why::UnknownKey);
    let token = mine.token(&claims());
    for length in 0..token.len() {
        assert!(keys.verify(&token[..length], "game", NOW).is_err(), "{length} bytes");
    }
    assert!(keys.verify(&"a".repeat(MAX_CREDENTIAL_BYTES + 1), "game", NOW).is_err());
}

#[test]
fn a_token_without_an_id_is_named_by_what_was_signed() {
    let issuer = Issuer::es256("k");
    let keys = keys(&[&issuer], &[]);
    // Two signatures over the same claims: ECDSA signs differently each time.
    let [one, two] = [(); 2].map(|()| issuer.token(&without("jti")));
    assert_ne!(one, two);
    let id = |token: &str| keys.verify(token, "game", NOW).unwrap().id;
    assert_eq!(id(&one), id(&two));
    assert_ne!(id(&one), id(&issuer.token(&claims())));
}

#[test]
fn key_documents_are_refused_with_a_reason() {
    let refuse = |document: Value| {
        JwtKeys::new([document.to_string().as_bytes()], Vec::new()).err().unwrap().to_string()
    };
    let without_alg = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": b64([1; 32])});
    assert!(refuse(without_alg).contains("alg"));
    assert!(refuse(json!({"keys": []})).contains("no key"));
    assert!(refuse(json!([1])).contains("not a JWK"));
    assert!(refuse(json!({"hello": 1})).contains("without kid"));
    let short = json!({"kty": "oct", "alg": "HS256", "kid": "k", "k": b64([1; 8])});
    assert!(refuse(short).contains("does not hold a key"));
    let other = json!({"kty": "oct", "alg": "HS512", "kid": "k", "k": b64([1; 64])});
    assert!(refuse(other).contains("pins"));
    let jwk = Issuer::hs256("k").jwk;
    assert!(refuse(json!({"keys": [jwk, jwk]})).contains("two JWKs"));
    let mut nameless = jwk.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    assert!(refuse(json!({"keys": [jwk, nameless]})).contains("no `kid`"));
}

#[test]
fn a_single_key_without_a_name_fits_tokens_with_and_without_one() {
    let mut issuer = Issuer::hs256("k");
    issuer.jwk.as_object_mut().unwrap().remove("kid");
    let keys = JwtKeys::new([issuer.jwk.to_string().as_bytes()], Vec::new()).unwrap();
    for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "whatever"})] {
        assert!(keys.verify(&issuer.token_with(&header, &claims()), "game", NOW).is_ok());
    }
}

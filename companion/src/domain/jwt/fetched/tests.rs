use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const LONG: Duration = Duration::from_secs(3600);

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signing(kid: &str) -> SigningKey {
    SigningKey::from_bytes(&[kid.as_bytes()[0]; 32])
}

fn jwk(kid: &str) -> Value {
    let x = b64(signing(kid).verifying_key().as_bytes());
    json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x})
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn token(kid: &str) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
    let claims = json!({"sub": "ada", "aud": "game", "exp": NOW.seconds() + 60}).to_string();
    let body = format!("{}.{}", b64(header), b64(claims));
    let signature = b64(signing(kid).sign(body.as_bytes()).to_bytes());
    format!("{body}.{signature}")
}

/// A URL that has what it is given, in order, and then the last of it.
#[derive(Default)]
struct Issuer {
    documents: Mutex<VecDeque<Result<Vec<u8>, String>>>,
    asked: Mutex<usize>,
}

struct Way(Arc<Issuer>);

#[tonic::async_trait]
impl Fetch for Way {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        *self.0.asked.lock().unwrap() += 1;
        let mut documents = self.0.documents.lock().unwrap();
        let next = documents.pop_front().unwrap();
        if documents.is_empty() {
            documents.push_back(next.clone());
        }
        next
    }
}

fn rules() -> Rules {
    let (refresh, cool_down, timeout) = (LONG, LONG, LONG);
    Rules { refresh, cool_down, timeout, algorithm: None, issuers: Vec::new() }
}

fn world(documents: Vec<Result<Vec<u8>, String>>, rules: Rules) -> (Arc<FetchedKeys>, Arc<Issuer>) {
    let issuer = Arc::new(Issuer { documents: Mutex::new(documents.into()), ..Issuer::default() });
    let keys = Arc::new(FetchedKeys::new(Box::new(Way(Arc::clone(&issuer))), rules));
    keys.start();
    (keys, issuer)
}

fn asked(issuer: &Issuer) -> usize {
    *issuer.asked.lock().unwrap()
}

async fn verdict(keys: &FetchedKeys, kid: &str) -> Option<Why> {
    keys.verify(&token(kid), "game", NOW).await.err()
}

/// Waits until so many rounds are over.
async fn rounds(keys: &FetchedKeys, count: u64) {
    let mut rounds = keys.rounds.subscribe();
    let over = rounds.wait_for(|now| *now >= count);
    tokio::time::timeout(Duration::from_secs(60), over).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_login_that_comes_before_the_first_set_waits_for_it() {
    let (keys, _) = world(vec![Ok(set(&[jwk("a")]))], rules());
    assert_eq!(verdict(&keys, "a").await, None);
    assert_eq!(keys.numbers(), Numbers { fetched: 1, failed: 0, keys: 1, age: Some(0) });
}

#[tokio::test]
async fn an_unknown_key_has_the_set_fetched_once_and_not_again_for_a_while() {
    let documents = vec![Ok(set(&[jwk("a")])), Ok(set(&[jwk("a"), jwk("b")]))];
    let (keys, issuer) = world(documents, Rules { cool_down: Duration::ZERO, ..rules() });
    rounds(&keys, 1).await;
    assert_eq!(verdict(&keys, "b").await, None, "a new key is found");
    assert_eq!(asked(&issuer), 2);

    let (keys, issuer) = world(vec![Ok(set(&[jwk("a")]))], rules());
    rounds(&keys, 1).await;
    for kid in ["x", "y", "z"] {
        assert_eq!(verdict(&keys, kid).await, Some(Why::UnknownKey));
    }
    assert_eq!((verdict(&keys, "a").await, asked(&issuer)), (None, 1));
}

#[tokio::test]
async fn many_logins_with_one_unknown_key_ask_once() {
    let documents = vec![Ok(set(&[jwk("a")])), Ok(set(&[jwk("b")]))];
    let (keys, issuer) = world(documents, Rules { cool_down: Duration::ZERO, ..rules() });
    rounds(&keys, 1).await;
    let logins: Vec<_> = (0..50)
        .map(|_| {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move { verdict(&keys, "b").await })
        })
        .collect();
    for login in logins {
        assert_eq!(login.await.unwrap(), None);
    }
    assert_eq!(asked(&issuer), 2);
}

#[tokio::test]
async fn the_last_good_set_stays_while_the_url_is_away_or_has_nonsense() {
    let quick = Duration::from_millis(1);
    let documents = vec![
        Ok(set(&[jwk("a")])),
        Err("away".into()),
        Ok(b"<html>".to_vec()),
        Ok(set(&[])),
        Ok(set(&[json!({"kty": "oct", "k": "AAAA"})])),
        Err("away".into()),
    ];
    let (keys, _) = world(documents, Rules { refresh: quick, cool_down: quick, ..rules() });
    rounds(&keys, 6).await;
    let numbers = keys.numbers();
    assert!(numbers.failed >= 5 && (numbers.fetched, numbers.keys) == (1, 1), "{numbers:?}");
    assert_eq!(verdict(&keys, "a").await, None);
}

#[tokio::test]
async fn without_any_set_a_client_is_told_to_try_again() {
    let (keys, _) = world(vec![Err("away".into())], rules());
    rounds(&keys, 1).await;
    assert_eq!(verdict(&keys, "a").await, Some(Why::KeysAway));
}

#[tokio::test]
async fn nobody_fetches_for_keys_that_nobody_holds() {
    let quick = Duration::from_millis(1);
    let (keys, issuer) = world(vec![Ok(set(&[jwk("a")]))], Rules { refresh: quick, ..rules() });
    rounds(&keys, 3).await;
    drop(keys);
    // The task lets go of the way, and with it of the issuer.
    tokio::time::timeout(Duration::from_secs(60), async {
        while Arc::strong_count(&issuer) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[test]
fn of_a_published_set_only_public_keys_for_signatures_of_the_pinned_algorithm_count() {
    let mut nameless = jwk("n");
    nameless.as_object_mut().unwrap().remove("alg");
    let mut encryption = jwk("e");
    encryption["use"] = "enc".into();
    let secret = json!({"kty": "oct", "alg": "HS256", "kid": "s", "k": b64([7; 32])});
    let odd = json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "o", "pub": "AA"});
    let other = json!({"kty": "RSA", "alg": "RS512", "kid": "r", "n": "AQAB", "e": "AQAB"});
    let all = set(&[jwk("a"), nameless, encryption, secret, odd, other, jwk("a")]);
    let published = |document: &[u8], algorithm| {
        let keys = JwtKeys::of_published(document, Vec::new(), algorithm);
        keys.map(|keys| {
            let mut names: Vec<_> = keys.keys.into_keys().collect();
            names.sort();
            names
        })
    };
    assert_eq!(published(&all, None).unwrap(), ["a"]);
    assert_eq!(published(&all, Some(Algorithm::EdDSA)).unwrap(), ["a", "n"]);
    assert!(matches!(published(&all, Some(Algorithm::RS256)), Err(JwkError::NoneUsable)));
    let many: Vec<_> = (0..200).map(|n| jwk(&format!("a{n}"))).collect();
    assert_eq!(published(&set(&many), None).unwrap().len(), 64);
}

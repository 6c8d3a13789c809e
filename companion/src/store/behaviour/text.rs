//! Every store as text.

use super::{Tested, at, id, ids, lives, session, uses};
use crate::domain::group::{GroupLimits, GroupName};
use crate::store::Admitted;
use crate::store::lines::{Carried, LinesError, export, import};

async fn text(store: &Tested) -> String {
    let mut text = Vec::new();
    export(store.as_ref(), &mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

pub async fn what_is_written_as_text_is_read_back_whole_into_an_empty_store(store: Tested) {
    for number in 0..600 {
        let expires = if number == 7 { 50 } else { 1000 };
        store.admit(lives(&session(number, "ada", expires))).await.unwrap();
    }
    for number in [3, 5] {
        let group = GroupName::new("Grüße").unwrap();
        store.join(group, id(number), GroupLimits::default()).await.unwrap();
    }
    store.depart(vec![session(5, "ada", 0).hold()], Some(at(500))).await.unwrap();
    for (name, expires) in [("old", 50), ("new", 1000)] {
        store.admit(uses(expires, name)).await.unwrap();
    }
    let before = text(&store).await;
    let full = import(store.as_ref(), before.as_bytes(), at(100)).await;
    assert!(matches!(full, Err(LinesError::NotEmpty(600))), "{full:?}");

    let all = ids(&store, None).await;
    store.end(all, None).await.unwrap();
    let carried = import(store.as_ref(), before.as_bytes(), at(100)).await.unwrap();
    assert_eq!(carried, Carried { sessions: 600, credentials: 2, expired: 2 });
    let after = text(&store).await;
    let expected = before.replace("\"sessions\":600", "\"sessions\":599");
    let expired = format!("{}\"", id(7));
    let expected: Vec<_> =
        sorted(&expected).into_iter().filter(|l| !l.contains(&expired)).collect();
    assert_eq!(sorted(&after), expected);
    assert_eq!(store.admit(uses(1000, "new")).await, Ok(Admitted::CredentialUsed));

    // What is not whole is not taken for it.
    let all = ids(&store, None).await;
    store.end(all, None).await.unwrap();
    let cut = before.rsplit_once("{\"end\"").unwrap().0;
    for (bad, named) in [
        (cut.to_owned(), "cut off"),
        (before.replacen("\"meshgate_store\":1", "\"meshgate_store\":2", 1), "version 2"),
        (before.replacen("\"ticket\"", "\"tickets\"", 1), "unknown mode"),
        ("{\"a\":1}\n".to_owned(), "line 1"),
    ] {
        let all = ids(&store, None).await;
        store.end(all, None).await.unwrap();
        let error = import(store.as_ref(), bad.as_bytes(), at(100)).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}

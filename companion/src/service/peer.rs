//! Who is at the other end of a connection, and by which names.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::metadata::MetadataMap;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a connection knows of its other end; tonic hands it to every call.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Of its certificate, if it showed one: URIs, DNS names, common names, in this order.
    pub names: Arc<[String]>,
}

/// The names in a certificate that TLS has verified.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let (mut uris, mut others) = (Vec::new(), Vec::new());
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => others.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    let common = certificate.subject().iter_common_name();
    others.extend(common.filter_map(|name| name.as_str().ok().map(str::to_owned)));
    uris.extend(others);
    uris
}

/// When a certificate expires, in seconds since the Unix epoch.
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

/// The identity that the mesh's sidecar vouches for: `URI` of the last element of
/// `x-forwarded-client-cert`, the one that the nearest proxy added (Envoy, HTTP connection
/// manager, "x-forwarded-client-cert"). To be asked only where nothing else reaches the port.
pub fn mesh_names(metadata: &MetadataMap) -> Vec<String> {
    let values = metadata.get_all("x-forwarded-client-cert");
    let Some(value) = values.iter().next_back().and_then(|value| value.to_str().ok()) else {
        return Vec::new();
    };
    let element = outside_quotes(value, ',').pop().unwrap_or_default();
    outside_quotes(element, ';')
        .into_iter()
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| name.eq_ignore_ascii_case("uri"))
        .map(|(_, uri)| uri.trim_matches('"').to_owned())
        .filter(|uri| !uri.is_empty())
        .collect()
}

/// The parts between separators that are not inside of double quotes.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character| {
        let counts = !escaped;
        escaped = counts && character == '\\';
        if counts && character == '"' {
            quoted = !quoted;
        }
        !quoted && character == separator
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_sidecar_has_the_last_word_on_who_calls() {
        let names = |values: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append("x-forwarded-client-cert", value.parse().unwrap());
            }
            mesh_names(&metadata)
        };
        let forged = r#"URI=spiffe://d/ns/a/sa/admin"#;
        let real =
            r#"By=spiffe://d/x;Hash=ab;Subject="CN=a,O=\"b;URI=evil\"";URI=spiffe://d/ns/b/sa/b"#;
        assert_eq!(names(&[real]), ["spiffe://d/ns/b/sa/b"]);
        assert_eq!(names(&[&format!("{forged},{real}")]), ["spiffe://d/ns/b/sa/b"]);
        assert_eq!(names(&[forged, real]), ["spiffe://d/ns/b/sa/b"]);
        assert_eq!(names(&[&format!("{forged},Hash=1")]), Vec::<String>::new());
        assert_eq!(names(&[]), Vec::<String>::new());
    }
}

//! A document and the Ed25519 signature (RFC 8032) over its exact text. The text travels as a
//! string, so that no side ever has to re-create the other's JSON to check it.

use aws_lc_rs::{
    encoding::AsDer,
    error::Unspecified,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// `payload` is JSON text; `key` and `signature` are lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    pub payload: String,
    pub key: String,
    pub signature: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    #[error("the signature does not match")]
    BadSignature,
    #[error("signed by a key that is not trusted here")]
    UntrustedKey,
    #[error("the signed document is not in the expected form: {0}")]
    Malformed(String),
}

impl Signed {
    pub fn new(document: &impl Serialize, key: &SigningKey) -> Signed {
        let payload = serde_json::to_string(document).expect("our own documents serialise");
        let signature = HEXLOWER.encode(key.0.sign(payload.as_bytes()).as_ref());
        Signed { payload, key: key.public_hex(), signature }
    }

    /// Checks the signature and that the signer is one of `trusted` (hex public keys), then parses.
    pub fn open<T: DeserializeOwned>(&self, trusted: &[String]) -> Result<T, SignedError> {
        if !trusted.contains(&self.key) {
            return Err(SignedError::UntrustedKey);
        }
        self.open_self_signed()
    }

    /// Checks the signature against the key that came along: for enrolment, where the key is news.
    pub fn open_self_signed<T: DeserializeOwned>(&self) -> Result<T, SignedError> {
        let decode = |s: &str| HEXLOWER.decode(s.as_bytes()).map_err(|_| SignedError::BadSignature);
        UnparsedPublicKey::new(&ED25519, decode(&self.key)?)
            .verify(self.payload.as_bytes(), &decode(&self.signature)?)
            .map_err(|Unspecified| SignedError::BadSignature)?;
        serde_json::from_str(&self.payload).map_err(|e| SignedError::Malformed(e.to_string()))
    }
}

/// An Ed25519 key pair; stored as PKCS#8.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    pub fn generate() -> SigningKey {
        SigningKey(Ed25519KeyPair::generate().expect("the system's random source works"))
    }

    /// PKCS#8 v1 DER.
    pub fn from_pkcs8(der: &[u8]) -> Option<SigningKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(SigningKey)
    }

    pub fn to_pkcs8(&self) -> Vec<u8> {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
            self.0.as_der().expect("a key that exists can be encoded");
        der.as_ref().to_vec()
    }

    pub fn public_hex(&self) -> String {
        HEXLOWER.encode(self.0.public_key().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_was_signed_and_nothing_else() {
        let key = SigningKey::generate();
        let signed = Signed::new(&vec![1, 2, 3], &key);
        let trusted = [key.public_hex()];
        assert_eq!(signed.open::<Vec<u8>>(&trusted), Ok(vec![1, 2, 3]));
        let tampered = Signed { payload: "[1,2,4]".into(), ..signed.clone() };
        assert_eq!(tampered.open::<Vec<u8>>(&trusted), Err(SignedError::BadSignature));
        assert_eq!(signed.open::<Vec<u8>>(&[]), Err(SignedError::UntrustedKey));
    }

    #[test]
    fn survives_being_stored() {
        let key = SigningKey::generate();
        let back = SigningKey::from_pkcs8(&key.to_pkcs8()).expect("own format");
        assert_eq!(back.public_hex(), key.public_hex());
    }
}

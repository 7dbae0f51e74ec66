//! The operator's secrets in the data folder: key files and the bearer token, all readable by the
//! hub's user only. Must never write over one that exists.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use data_encoding::HEXLOWER;

use crate::api::signed::SigningKey;

pub const KEYS_DIR: &str = "keys";
pub const TOKEN_FILE: &str = "operator-token";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: cannot write the key: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{path}: cannot read the key: {source}; if this hub is new, run `larder-hub init` first"
    )]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: this is not an Ed25519 key in PKCS#8 form; restore it from a backup")]
    Unusable { path: PathBuf },
}

/// What a key is for; each has its own, so that each can be kept in its own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyName {
    Root,
    Targets,
    Snapshot,
    Timestamp,
    Statement,
}

impl KeyName {
    pub const ALL: [KeyName; 5] = [
        KeyName::Root,
        KeyName::Targets,
        KeyName::Snapshot,
        KeyName::Timestamp,
        KeyName::Statement,
    ];

    fn file(self) -> &'static str {
        match self {
            KeyName::Root => "root.pk8",
            KeyName::Targets => "targets.pk8",
            KeyName::Snapshot => "snapshot.pk8",
            KeyName::Timestamp => "timestamp.pk8",
            KeyName::Statement => "statement.pk8",
        }
    }

    pub fn path(self, data_dir: &Path) -> PathBuf {
        data_dir.join(KEYS_DIR).join(self.file())
    }
}

/// Makes all keys and the operator's token.
pub fn create(data_dir: &Path) -> Result<(), KeyError> {
    let dir = data_dir.join(KEYS_DIR);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|source| KeyError::Write { path: dir, source })?;
    for name in KeyName::ALL {
        write_secret(&name.path(data_dir), &SigningKey::generate().to_pkcs8())?;
    }
    let mut token = [0u8; 32];
    aws_lc_rs::rand::fill(&mut token).expect("the system's random source works");
    let text = format!("{}\n", HEXLOWER.encode(&token));
    write_secret(&data_dir.join(TOKEN_FILE), text.as_bytes())
}

/// Whether an earlier `init` left any key or token here.
pub fn any_exist(data_dir: &Path) -> bool {
    data_dir.join(TOKEN_FILE).exists() || KeyName::ALL.iter().any(|n| n.path(data_dir).exists())
}

/// PKCS#8 DER, checked to be usable.
pub fn read_der(data_dir: &Path, name: KeyName) -> Result<Vec<u8>, KeyError> {
    let path = name.path(data_dir);
    let der = fs::read(&path).map_err(|source| KeyError::Read { path: path.clone(), source })?;
    match SigningKey::from_pkcs8(&der) {
        Some(_) => Ok(der),
        None => Err(KeyError::Unusable { path }),
    }
}

pub fn read(data_dir: &Path, name: KeyName) -> Result<SigningKey, KeyError> {
    let der = read_der(data_dir, name)?;
    SigningKey::from_pkcs8(&der).ok_or_else(|| KeyError::Unusable { path: name.path(data_dir) })
}

fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| KeyError::Write { path: path.to_owned(), source })
}

/// The operator's token, kept as its hash: comparing hashes of equal length in constant time says
/// nothing about the token, not even how long it is.
pub struct OperatorToken([u8; 32]);

impl OperatorToken {
    pub fn read(data_dir: &Path) -> Result<OperatorToken, KeyError> {
        let path = data_dir.join(TOKEN_FILE);
        let text = fs::read_to_string(&path)
            .map_err(|source| KeyError::Read { path: path.clone(), source })?;
        match text.trim() {
            // A blank file must not turn into a token that anyone can guess.
            token if token.len() >= 32 => Ok(OperatorToken(sha256(token.as_bytes()))),
            _ => Err(KeyError::Unusable { path }),
        }
    }

    pub fn matches(&self, offered: &str) -> bool {
        verify_slices_are_equal(&self.0, &sha256(offered.as_bytes())).is_ok()
    }
}

pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

pub fn sha256_hex(data: &[u8]) -> String {
    HEXLOWER.encode(&sha256(data))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_for_the_owner_only_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(!any_exist(dir.path()));
        create(dir.path()).expect("creates");
        assert!(any_exist(dir.path()));
        for path in
            KeyName::ALL.map(|n| n.path(dir.path())).iter().chain([&dir.path().join(TOKEN_FILE)])
        {
            let mode = fs::metadata(path).expect("exists").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        let before = read_der(dir.path(), KeyName::Root).expect("reads");
        assert!(matches!(create(dir.path()), Err(KeyError::Write { .. })));
        assert_eq!(read_der(dir.path(), KeyName::Root).expect("reads"), before);
    }

    #[test]
    fn only_the_token_opens() {
        let dir = tempfile::tempdir().expect("a folder");
        create(dir.path()).expect("creates");
        let text = fs::read_to_string(dir.path().join(TOKEN_FILE)).expect("reads");
        let token = OperatorToken::read(dir.path()).expect("reads");
        assert!(token.matches(text.trim()));
        assert!(!token.matches(""));
        assert!(!token.matches(&text.trim()[1..]));
        fs::write(dir.path().join(TOKEN_FILE), "\n").expect("writes");
        assert!(matches!(OperatorToken::read(dir.path()), Err(KeyError::Unusable { .. })));
    }
}

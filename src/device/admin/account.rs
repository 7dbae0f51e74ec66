//! The owner's account: one password, set once with the one-time code, checked with argon2id.
//! There is no default password, and nothing here writes one to a log.

use std::{io, net::IpAddr, sync::Arc, time::Instant};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use aws_lc_rs::{constant_time, digest, rand};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    api::admin::{LoginRequest, Session, SetupRequest},
    logic::{login_guard::LoginGuard, now::Monotonic},
};

use super::{
    Credentials, PASSWORD_CHARS_MIN,
    refusal::Refusal,
    sessions::{Sessions, Token},
};

/// OWASP's smallest-memory setting for argon2id: 7 MiB fits beside everything else on a router
/// with 64 MB, and takes about a second on a 1-GHz ARM.
const ARGON2_MEMORY_KIB: u32 = 7 * 1024;
const ARGON2_PASSES: u32 = 5;
/// One at a time bounds both the memory and the cores that a guesser can take.
const HASHES_AT_ONCE: usize = 1;

pub struct Account {
    credentials: Arc<dyn Credentials>,
    setup_code: String,
    started: Instant,
    hashing: Arc<Semaphore>,
    /// Held while a first password is being set, so that the code works once.
    setting_up: Arc<tokio::sync::Mutex<()>>,
    guard: Mutex<LoginGuard>,
    sessions: Mutex<Sessions>,
}

impl Account {
    pub fn new(credentials: Arc<dyn Credentials>, setup_code: String) -> Account {
        Account {
            credentials,
            setup_code,
            started: Instant::now(),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            setting_up: Arc::default(),
            guard: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    pub async fn session(&self, token: Option<&Token>) -> Result<Session, Refusal> {
        let password_set = self.password_hash().await?.is_some();
        Ok(Session { password_set, logged_in: token.is_some_and(|t| self.is_logged_in(t)) })
    }

    pub fn is_logged_in(&self, token: &Token) -> bool {
        self.sessions.lock().use_token(token, self.now())
    }

    pub async fn set_up(&self, request: SetupRequest, from: IpAddr) -> Result<Token, Refusal> {
        let one_at_a_time = self.setting_up.clone().lock_owned().await;
        if self.password_hash().await?.is_some() {
            return Err(Refusal::PasswordAlreadySet);
        }
        if request.password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(Refusal::PasswordTooShort);
        }
        self.begin_try(from)?;
        if !same_code(&request.setup_code, &self.setup_code) {
            return Err(Refusal::WrongSetupCode);
        }
        self.guard.lock().succeeded(from);
        let credentials = self.credentials.clone();
        let stored = self.hashing_thread(move || {
            let _until_it_is_stored = one_at_a_time;
            credentials.set_password_hash(&hash_password(&request.password))
        });
        stored.await.map_err(storage)?;
        Ok(self.sessions.lock().open(self.now()))
    }

    pub async fn log_in(&self, request: LoginRequest, from: IpAddr) -> Result<Token, Refusal> {
        let phc = self.password_hash().await?.ok_or(Refusal::NoPasswordYet)?;
        self.begin_try(from)?;
        let right = self.hashing_thread(move || verify_password(&request.password, &phc));
        if !right.await.map_err(Refusal::Storage)? {
            return Err(Refusal::WrongPassword);
        }
        self.guard.lock().succeeded(from);
        Ok(self.sessions.lock().open(self.now()))
    }

    pub fn log_out(&self, token: &Token) {
        self.sessions.lock().close(token);
    }

    fn begin_try(&self, from: IpAddr) -> Result<(), Refusal> {
        self.guard.lock().begin_try(from, self.now()).map_err(Refusal::TooManyTries)
    }

    /// Read each time: whoever takes the file away to start again need not restart the device.
    async fn password_hash(&self) -> Result<Option<String>, Refusal> {
        let credentials = self.credentials.clone();
        let read = spawn_blocking(move || credentials.password_hash()).await;
        read.expect("reading does not panic").map_err(storage)
    }

    /// A second of CPU has no place on the threads that serve. The work keeps its permit even if
    /// the client goes away, else hanging up early would buy more guesses at once.
    async fn hashing_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let permit = self.hashing.clone().acquire_owned().await.expect("never closed");
        let task = spawn_blocking(move || {
            let _until_done = permit;
            work()
        });
        task.await.expect("hashing does not panic")
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.started.elapsed())
    }
}

fn storage(error: io::Error) -> Refusal {
    Refusal::Storage(error.to_string())
}

/// Case, spaces and dashes are how people copy codes. An empty code opens nothing.
fn same_code(given: &str, expected: &str) -> bool {
    let plain = |code: &str| -> String {
        let letters = code.chars().filter(|c| !c.is_whitespace() && *c != '-');
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    let hash = |code: &str| digest::digest(&digest::SHA256, plain(code).as_bytes());
    !plain(expected).is_empty()
        && constant_time::verify_slices_are_equal(hash(given).as_ref(), hash(expected).as_ref())
            .is_ok()
}

fn argon2id() -> Argon2<'static> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, None).expect("constants");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_password(password: &str) -> String {
    let mut salt = [0; 16];
    rand::fill(&mut salt).expect("the system's random source works");
    let salt = SaltString::encode_b64(&salt).expect("16 bytes make a salt");
    let hash = argon2id().hash_password(password.as_bytes(), &salt);
    hash.expect("the parameters are in range").to_string()
}

/// An unreadable hash is an error, never a match.
fn verify_password(password: &str, phc: &str) -> Result<bool, String> {
    let hash = PasswordHash::new(phc.trim())
        .map_err(|e| format!("the stored password hash is damaged ({e})"))?;
    Ok(argon2id().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_with_argon2id_and_a_new_salt_each_time() {
        let phc = hash_password("correct horse");
        assert!(phc.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{phc}");
        assert_ne!(phc, hash_password("correct horse"));
        assert_eq!(verify_password("correct horse", &phc), Ok(true));
        assert_eq!(verify_password("correct horse\n", &phc), Ok(false));
        assert!(verify_password("", "").is_err());
    }

    #[test]
    fn reads_codes_as_people_copy_them() {
        assert!(same_code(" abcd efgh", "ABCD-EFGH"));
        assert!(!same_code("ABCD-EFG", "ABCD-EFGH"));
        assert!(!same_code("", "") && !same_code("-", " "));
    }
}

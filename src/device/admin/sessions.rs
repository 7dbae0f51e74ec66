//! Who is logged in: random tokens, in memory only, so a restart logs everyone out. Keeps digests
//! of the tokens, not the tokens: neither a memory dump nor the time of a look-up gives one away.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::{digest, rand};
use data_encoding::HEXLOWER;

use crate::logic::now::Monotonic;

/// A phone that was not used for a day asks for the password again.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// And every device once a month, however busy.
pub const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// More than a household's phones and tablets; one more ends the one that was unused longest.
const MAX_SESSIONS: usize = 32;

/// 256 random bits, in the cookie as 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

#[derive(Default)]
pub struct Sessions(BTreeMap<[u8; 32], Session>);

struct Session {
    opened: Monotonic,
    used: Monotonic,
}

impl Token {
    fn random() -> Token {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).expect("the system's random source works");
        Token(bytes)
    }

    pub fn parse(text: &str) -> Option<Token> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Token)
    }

    pub fn to_text(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    fn digest(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        out
    }
}

impl Sessions {
    pub fn open(&mut self, now: Monotonic) -> Token {
        self.0.retain(|_, session| session.is_live(now));
        if self.0.len() >= MAX_SESSIONS {
            let oldest = self.0.iter().min_by_key(|(_, s)| s.used).map(|(key, _)| *key);
            if let Some(key) = oldest {
                self.0.remove(&key);
            }
        }
        let token = Token::random();
        self.0.insert(token.digest(), Session { opened: now, used: now });
        token
    }

    /// True if the session is live, which counts as a use of it.
    pub fn use_token(&mut self, token: &Token, now: Monotonic) -> bool {
        match self.0.get_mut(&token.digest()) {
            Some(session) if session.is_live(now) => {
                session.used = now;
                true
            }
            _ => false,
        }
    }

    pub fn close(&mut self, token: &Token) {
        self.0.remove(&token.digest());
    }
}

impl Session {
    fn is_live(&self, now: Monotonic) -> bool {
        now.saturating_since(self.used) < IDLE_MAX && now.saturating_since(self.opened) < AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Monotonic {
        Monotonic(Duration::from_secs(hours * 3600))
    }

    #[test]
    fn ends_after_a_day_unused_and_after_a_month_in_any_case() {
        let mut sessions = Sessions::default();
        let idle = sessions.open(at(0));
        let busy = sessions.open(at(0));
        for hour in 1..24 * 30 {
            assert!(sessions.use_token(&busy, at(hour)), "hour {hour}");
        }
        assert!(!sessions.use_token(&idle, at(24)));
        assert!(!sessions.use_token(&busy, at(24 * 30)));
    }

    #[test]
    fn drops_the_session_unused_longest_when_there_are_too_many() {
        let mut sessions = Sessions::default();
        let first = sessions.open(at(0));
        let second = sessions.open(at(1));
        assert!(sessions.use_token(&first, at(2)));
        for _ in 0..MAX_SESSIONS - 1 {
            sessions.open(at(3));
        }
        assert!(sessions.use_token(&first, at(3)));
        assert!(!sessions.use_token(&second, at(3)));
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
    }

    #[test]
    fn knows_no_token_but_its_own() {
        let mut sessions = Sessions::default();
        let token = sessions.open(at(0));
        assert_eq!(token.to_text().len(), 64);
        let parsed = Token::parse(&token.to_text()).expect("own format");
        assert!(sessions.use_token(&parsed, at(0)));
        assert!(!sessions.use_token(&Token::random(), at(0)));
        for bad in ["", "00", &"0".repeat(66), &"g".repeat(64)] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
        sessions.close(&token);
        assert!(!sessions.use_token(&token, at(0)));
    }
}

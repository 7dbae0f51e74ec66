//! The URLs under which a content can be had, all below the hub's public URL.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::logic::infohash::Infohash;

/// All but the unreserved characters of RFC 3986 section 2.3.
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub struct Addresses {
    /// Ends with a slash; the configuration has been checked for that.
    public_url: Url,
}

impl Addresses {
    pub fn new(public_url: Url) -> Addresses {
        Addresses { public_url }
    }

    pub fn public_url(&self) -> &Url {
        &self.public_url
    }

    pub fn metainfo(&self, infohash: Infohash) -> Url {
        self.below(&format!("metainfo/{infohash}.torrent"))
    }

    pub fn announce(&self) -> Url {
        self.below("announce")
    }

    /// BEP 12.
    pub fn tracker_tiers(&self) -> Vec<Vec<Url>> {
        vec![vec![self.announce()]]
    }

    /// BEP 19: the file itself, or the folder to which a client adds the torrent's name and path.
    pub fn web_seed(&self, infohash: Infohash, name: &str, directory: bool) -> Url {
        let mut url = self.below(&format!("origin/{infohash}/"));
        if !directory {
            url.path_segments_mut().expect("http URLs have paths").pop_if_empty().push(name);
        }
        url
    }

    /// BEP 9.
    pub fn magnet(&self, infohash: Infohash, name: &str) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NOT_UNRESERVED).to_string();
        let mut magnet = format!("magnet:?xt=urn:btih:{infohash}");
        write!(magnet, "&dn={}&tr={}", encode(name), encode(self.announce().as_str()))
            .expect("writing to a string cannot fail");
        magnet
    }

    fn below(&self, path: &str) -> Url {
        self.public_url.join(path).expect("our own paths are valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_urls_and_magnets() {
        let addresses = Addresses::new("http://hub.example:7070/x/".parse().expect("a URL"));
        let name = "a b&c?d#e%2f.mp4";
        let infohash = Infohash([0xab; 20]);
        let hex = "ab".repeat(20);
        assert_eq!(
            addresses.web_seed(infohash, name, false).as_str(),
            format!("http://hub.example:7070/x/origin/{hex}/a%20b&c%3Fd%23e%252f.mp4")
        );
        assert_eq!(
            addresses.magnet(infohash, name),
            format!(
                "magnet:?xt=urn:btih:{hex}&dn=a%20b%26c%3Fd%23e%252f.mp4\
                 &tr=http%3A%2F%2Fhub.example%3A7070%2Fx%2Fannounce"
            )
        );
        assert_eq!(
            addresses.web_seed(infohash, name, true).as_str(),
            format!("http://hub.example:7070/x/origin/{hex}/")
        );
    }
}

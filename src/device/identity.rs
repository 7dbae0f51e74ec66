//! Who this device is: its key, and the peer id that follows from it.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::{
    api::{hub::DeviceId, signed::SigningKey},
    logic::wire::peer_id,
};

pub struct Identity {
    pub key: SigningKey,
    pub device: DeviceId,
    pub peer_id: [u8; 20],
}

impl Identity {
    /// Everything follows from the key, so nothing can disagree with it. The peer id is the same
    /// for life: clients that watch for peers changing their name leave us alone.
    pub fn new(key: SigningKey) -> Identity {
        let public = HEXLOWER.decode(key.public_hex().as_bytes()).expect("our own hex");
        let hash = digest::digest(&digest::SHA256, &public);
        let device = HEXLOWER.encode(&hash.as_ref()[..16]);
        let second_half = hash.as_ref().last_chunk().expect("SHA-256 has 32 bytes");
        let peer_id = peer_id(second_half);
        Identity { key, device, peer_id }
    }

    pub fn peer_id_hex(&self) -> String {
        HEXLOWER.encode(&self.peer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_peer_id_for_life() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).expect("own format");
        let (a, b) = (Identity::new(key), Identity::new(again));
        assert_eq!(a.peer_id, b.peer_id);
        assert_eq!(a.device, b.device);
        assert!(a.peer_id.starts_with(b"-LD0100-"));
        assert_eq!(a.device.len(), 32);
    }
}

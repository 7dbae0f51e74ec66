//! A frame of the ledger's journal, as a crash or a foreign hand may have left it.

use larder::logic::ledger::{
    frame::{FRAME_BYTES, Frame, checksum},
    journal::replay,
};

use super::Verdict;

const CHECKSUM_BYTES: usize = 16;

/// As it is, and with what the fuzzer cannot guess: the length and the checksum.
pub fn check(data: &[u8]) -> Verdict {
    read(data);
    let mut whole = data.to_vec();
    whole.resize(FRAME_BYTES - CHECKSUM_BYTES, 0);
    whole.extend(checksum(&whole));
    read(&whole)
}

fn read(bytes: &[u8]) -> Verdict {
    let Some(frame) = Frame::decode(bytes) else { return Verdict::Refused };
    assert_eq!(frame.encode().as_deref(), Some(bytes));
    let (ledger, sequence) = (frame.ledger, frame.sequence);
    let found = replay([frame.clone(), frame.clone()], ledger, sequence.wrapping_sub(1));
    if sequence > 0 {
        assert_eq!(found.sequence, sequence);
        assert_eq!(found, replay([frame.clone()], ledger, sequence - 1), "counted twice");
    }
    assert!(replay([frame], ledger, sequence).sums.is_empty(), "counted although it was applied");
    Verdict::Accepted
}

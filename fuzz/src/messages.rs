//! The length-prefixed messages of BEP 3, 6 and 10, through the assembler that finds them in a stream.
//! The first byte says in what pieces the stream comes; the rest is the stream.

use larder::logic::wire::{Assembler, MAX_KEPT_MESSAGE_BYTES, Message, WireError};

use super::{
    Verdict,
    input::{Input, pieces},
};

pub fn check(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let size = usize::from(input.byte());
    let stream = input.take_rest();
    let whole = read(stream, 0);
    assert_eq!(read(stream, size), whole, "in pieces of {size} it means something else");
    match whole {
        (_, Ok(())) => Verdict::Accepted,
        (_, Err(_)) => Verdict::Refused,
    }
}

/// What was found before the end or the error, each message in a form that can be compared.
fn read(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Result<(), WireError>) {
    let mut assembler = Assembler::default();
    let mut found = vec![];
    for mut piece in pieces(stream, size) {
        loop {
            match assembler.next(&mut piece) {
                Ok(Some(message)) => found.push(written(message)),
                Ok(None) => break,
                Err(why) => return (found, Err(why)),
            }
        }
        assert!(piece.is_empty(), "`None` means that all is read");
        assert!(assembler.kept_bytes() <= 4 + MAX_KEPT_MESSAGE_BYTES as usize);
    }
    (found, Ok(()))
}

/// As we would write it, which has to mean the same again; those that we never write, by name.
fn written(message: Message<'_>) -> Vec<u8> {
    match message {
        Message::Piece => b"piece".to_vec(),
        Message::Other(id) => vec![id],
        message => {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes[4..]), Ok(message));
            bytes
        }
    }
}

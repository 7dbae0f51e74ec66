//! Leechers that a tracker has named, on addresses of loopback of their own, each with a listener.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::{super::connection::Connection, *};
use crate::logic::{now::Monotonic, outreach::Call, usage::PeerClass, wire::LocalPeer};

fn listener(host: u8) -> (TcpListener, SocketAddr) {
    let listener =
        TcpListener::bind(SocketAddr::from(([127, 0, 7, host], 0))).expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn name(stage: &Stage, leechers: &[SocketAddr]) {
    let leechers = leechers.to_vec();
    stage.engine.send(ServeCommand::Named { infohash: stage.infohash, leechers });
    stage.engine.take_usage();
}

/// Waits for the engine's call.
fn called(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("sets");
    let mut call = None;
    wait_until("the engine calls", || {
        call = listener.accept().ok();
        call.is_some()
    });
    let (stream, _) = call.expect("just waited for");
    stream.set_nonblocking(false).expect("sets");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    stream
}

fn has_no_call(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("sets");
    let error = listener.accept().expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_leecher_that_cannot_find_us_is_called_and_served_to_the_byte() {
    let stage = Stage::new(Allowance::Unlimited);
    let (listener, address) = listener(1);
    name(&stage, &[address]);
    let stream = called(&listener);
    let mut leecher = Leecher::answer(stream, stage.infohash);
    leecher.hear("HaveAll");
    let Said::Extended { id: 0, payload } = leecher.next() else { panic!("BEP 10 comes next") };
    let ours = ExtensionHandshake::parse(&payload).expect("well-formed");
    assert!(ours.upload_only);
    leecher.become_unchoked();
    leecher.download(&stage);
    let usage = stage.delivered(stage.data.len() as u64);
    assert_eq!(stage.engine.stats().egress_wire_bytes_total, usage.wire_bytes);
}

#[test]
fn a_called_leecher_keeps_to_the_limit_and_to_the_slots() {
    let stage = Stage::new(Allowance::BytesPerSecond(400_000));
    let (listener, address) = listener(2);
    name(&stage, &[address]);
    let mut leecher = Leecher::answer(called(&listener), stage.infohash);
    let start = Instant::now();
    leecher.become_unchoked();
    wait_until("it has a slot", || stage.engine.stats().peers_unchoked == 1);
    let some = &stage.blocks()[..20];
    leecher.request(some);
    some.iter().for_each(|block| leecher.expect_block(&stage, *block));
    stage.engine.take_usage();
    let sent = stage.engine.stats().egress_wire_bytes_total as f64;
    assert!(sent <= start.elapsed().as_secs_f64() * 400_000.0 + 50_000.0, "{sent}");
}

#[test]
fn a_seed_that_answers_is_left_and_not_called_again() {
    let stage = Stage::new(Allowance::Unlimited);
    let (listener, address) = listener(3);
    name(&stage, &[address]);
    let mut seed = Leecher::answer(called(&listener), stage.infohash);
    seed.send(&[Message::HaveAll]);
    wait_until("it is closed", || stage.connected() == 0);
    name(&stage, &[address]);
    let (other, other_address) = self::listener(4);
    name(&stage, &[address, other_address]);
    called(&other);
    has_no_call(&listener);
}

#[test]
fn whoever_does_not_answer_as_a_peer_is_left_alone() {
    let quick = Timeouts { handshake: Duration::from_secs(1), ..Timeouts::default() };
    let stage = Stage::with(Allowance::Unlimited, settings(), quick, true);
    let (web_server, address) = listener(5);
    let (silent, silent_address) = listener(6);
    let nobody = listener(7).1;
    name(&stage, &[nobody, address, silent_address]);
    let mut stream = called(&web_server);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("writes");
    let _open = called(&silent);
    wait_until("all are given up", || stage.connected() == 0);
    name(&stage, &[nobody, address, silent_address]);
    stage.engine.take_usage();
    assert_eq!(stage.connected(), 0);
    has_no_call(&web_server);
    has_no_call(&silent);
}

#[test]
fn nobody_is_called_without_room_for_them_or_for_what_is_not_served() {
    let stage = Stage::new(Allowance::BytesPerSecond(100_000));
    let mut four: Vec<Leecher> = (0..4).map(|_| stage.leecher()).collect();
    four.iter_mut().for_each(|peer| peer.send(&[Message::Interested]));
    wait_until("the slots are taken", || stage.engine.stats().peers_unchoked == 4);
    let (listener, address) = listener(8);
    let unknown = ServeCommand::Named { infohash: Infohash([9; 20]), leechers: vec![address] };
    stage.engine.send(unknown);
    name(&stage, &[address]);
    has_no_call(&listener);
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Paused));
    drop(four);
    wait_until("they are gone", || stage.connected() == 0);
    has_no_call(&listener);
    stage.engine.send(ServeCommand::SetAllowance(Allowance::Unlimited));
    let mut leecher = Leecher::answer(called(&listener), stage.infohash);
    leecher.hear("HaveAll");
}

#[test]
fn nobody_is_called_who_is_connected_already() {
    let stage = Stage::new(Allowance::Unlimited);
    let _connected = Leecher::from_address([127, 0, 7, 9], &stage);
    let (listener, address) = listener(9);
    let (other, other_address) = self::listener(10);
    name(&stage, &[address, other_address]);
    called(&other);
    has_no_call(&listener);
}

#[test]
fn a_call_ends_with_its_content() {
    let stage = Stage::new(Allowance::Unlimited);
    let (listener, address) = listener(11);
    name(&stage, &[address]);
    let mut leecher = Leecher::answer(called(&listener), stage.infohash);
    leecher.hear("HaveAll");
    stage.engine.send(ServeCommand::Remove { infohash: stage.infohash });
    wait_until("it is closed", || stage.connected() == 0);
}

#[test]
fn lets_everything_else_go_first_from_the_first_packet_on() {
    let (_listener, address) = listener(12);
    let us = LocalPeer {
        peer_id: [1; 20],
        client_name: String::new(),
        listen_port: 6881,
        timeouts: Timeouts::default(),
    };
    let call = Call { infohash: Infohash([2; 20]), address };
    let mut connection =
        Connection::calling(call, &us, PeerClass::Wan, 1, Monotonic::START).expect("begins");
    let tos = socket2::SockRef::from(&*connection.source()).tos_v4().expect("is told");
    assert_eq!(tos >> 2, 1, "DSCP LE (RFC 8622)");
}

//! The owner's hours for fills, over the real programs.

use larder::api::admin::{ContentState, State};

use crate::harness::{Lab, random_file, wait_for};

const SIZE: usize = 3 << 20;

#[test]
fn a_fill_waits_for_its_window_and_says_so() {
    let mut lab = Lab::new();
    lab.start_hub();
    let off = "0".repeat(24);
    let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let week: Vec<String> = days.iter().map(|day| format!("{day} = \"{off}\"")).collect();
    lab.device_extra = format!("[fill.windows]\n{}", week.join("\n"));
    lab.start_device();
    let film = lab.path("film.bin");
    random_file(&film, SIZE, 77);
    let infohash = lab.publish(&film).infohash;
    wait_for("the sentence on the page", || {
        lab.content(infohash)
            .and_then(|content| content.waits)
            .filter(|waits| waits.contains("waits for a window"))
    });
    let status = lab.status().expect("a status");
    assert_eq!((status.state, status.problem), (State::Empty, None), "nobody has to do anything");
    let content = lab.content(infohash).expect("wanted");
    assert_eq!((content.state, content.held_bytes), (ContentState::Waiting, 0));

    lab.kill_device();
    lab.device_extra.clear();
    lab.start_device();
    let content = lab.wait_until_served(infohash);
    assert_eq!((content.state, content.waits), (ContentState::Serving, None));
    assert_eq!((content.held_bytes, content.wanted_bytes), (SIZE as u64, SIZE as u64));
}

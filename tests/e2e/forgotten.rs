//! A hub that has lost its books: its devices enrol again by themselves if they can, and say what to do if
//! they cannot.

use rusqlite::Connection;

use crate::harness::{Lab, wait_for};

fn hub_forgets(lab: &Lab, and: &str) {
    let books = Connection::open(lab.path("hub/hub.sqlite3")).expect("opens");
    let forget = format!("PRAGMA foreign_keys = OFF; DELETE FROM devices; {and}");
    books.execute_batch(&forget).expect("writes");
}

fn enrolled(lab: &Lab) -> Option<bool> {
    Some(lab.status()?.hub.enrolled)
}

#[test]
fn a_device_that_the_hub_has_forgotten_enrols_again_or_says_what_to_do() {
    let mut lab = Lab::started();
    wait_for("the enrolment", || enrolled(&lab).filter(|enrolled| *enrolled));
    lab.kill_hub();
    hub_forgets(&lab, "");
    lab.start_hub();
    let problem = wait_for("a word about the claim code", || {
        lab.status()?.hub.problem.filter(|problem| problem.contains("claim code"))
    });
    assert_eq!(problem.lines().count(), 1, "{problem}");
    assert_eq!(enrolled(&lab), Some(false));

    // The operator gives the code a second life; a device that is started again asks soon.
    lab.kill_hub();
    hub_forgets(&lab, "UPDATE claim_codes SET used_by = NULL;");
    lab.start_hub();
    lab.kill_device();
    lab.start_device();
    wait_for("another enrolment", || enrolled(&lab).filter(|enrolled| *enrolled));
    wait_for("peace", || lab.status().filter(|status| status.hub.problem.is_none()));
}

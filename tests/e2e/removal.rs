//! The owner takes a content off the device, by the page's API: it is gone, stays away over a restart and
//! another list, and comes back when the owner lets it.

use std::fs;

use larder::{
    api::{
        admin::{ContentState, LoginRequest, RemovalRequest, SetupRequest},
        endpoints::{DeviceEndpoints, ENDPOINTS_FILE},
    },
    logic::infohash::Infohash,
};
use reqwest::{Client, StatusCode, header};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::harness::{Lab, random_file, wait_for};

const PASSWORD: &str = "correct horse battery";

/// Whoever had the one-time code from the log.
struct Owner {
    runtime: Runtime,
    client: Client,
    cookie: String,
}

impl Owner {
    fn set_up(lab: &Lab) -> Owner {
        let log = lab.device_log();
        let code =
            log.split("one-time code ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let setup_code = code.expect("larderd says it").into();
        Owner::enter(lab, "setup", &SetupRequest { setup_code, password: PASSWORD.into() })
    }

    fn log_in(lab: &Lab) -> Owner {
        Owner::enter(lab, "login", &LoginRequest { password: PASSWORD.into() })
    }

    fn enter(lab: &Lab, path: &str, body: &impl Serialize) -> Owner {
        let (runtime, client) = (Runtime::new().expect("a runtime"), Client::new());
        let request = client.post(url(lab, path)).json(body);
        let answer = runtime.block_on(request.send()).expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let cookie = answer.headers()[header::SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        Owner { runtime, client, cookie }
    }

    fn set_removed(&self, lab: &Lab, infohash: Infohash, removed: bool) {
        let request = self.client.put(url(lab, "removal")).header(header::COOKIE, &self.cookie);
        let request = request.json(&RemovalRequest { infohash, removed });
        let answer = self.runtime.block_on(request.send()).expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

fn url(lab: &Lab, path: &str) -> String {
    let endpoints = fs::read(lab.path("device").join(ENDPOINTS_FILE)).expect("it runs");
    let endpoints: DeviceEndpoints = serde_json::from_slice(&endpoints).expect("well-formed");
    format!("{}api/v1/{path}", endpoints.admin_url)
}

fn publish(lab: &Lab, name: &str, seed: u64) -> Infohash {
    random_file(&lab.path(name), 2_000_003, seed);
    lab.publish(&lab.path(name)).infohash
}

fn wait_until_it_stays_away(lab: &Lab, infohash: Infohash) {
    wait_for("it to be gone", || {
        let content = lab.content(infohash)?;
        (content.state == ContentState::Waiting && content.held_bytes == 0).then_some(())
    });
    let waits = lab.content(infohash).and_then(|c| c.waits).expect("says why");
    assert!(waits.starts_with("you removed it"), "{waits}");
    let folder = lab.path("device/content").join(infohash.to_string());
    wait_for("its files to be gone", || (!folder.exists()).then_some(()));
}

#[test]
fn what_the_owner_removes_stays_away_until_the_owner_says_otherwise() {
    let mut lab = Lab::started();
    let unwanted = publish(&lab, "unwanted.bin", 1);
    lab.wait_until_served(unwanted);
    Owner::set_up(&lab).set_removed(&lab, unwanted, true);
    wait_until_it_stays_away(&lab, unwanted);

    lab.kill_device();
    lab.start_device();
    let other = publish(&lab, "other.bin", 2);
    lab.wait_until_served(other);
    wait_until_it_stays_away(&lab, unwanted);

    Owner::log_in(&lab).set_removed(&lab, unwanted, false);
    lab.wait_until_served(unwanted);
}

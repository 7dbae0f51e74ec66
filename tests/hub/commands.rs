//! The `larder` and `larder-hub` command lines: exit codes, JSON, and what they say.

use std::process::Command;

use larder::{
    api::hub::{ClaimCodesResponse, Published, Revoked},
    logic::hotlist::HotList,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Device, Hub, noise};

fn stdout<T: serde::de::DeserializeOwned>(output: &std::process::Output) -> T {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[tokio::test]
async fn publishes_lists_and_revokes() {
    let hub = Hub::start().await;
    let dir = hub.scratch().join("season 1");
    std::fs::create_dir_all(dir.join("extras")).expect("creates");
    std::fs::write(dir.join("film.mp4"), noise(1, 200_000)).expect("writes");
    std::fs::write(dir.join("extras/more.mp4"), noise(2, 50_000)).expect("writes");
    let dir = dir.to_str().expect("text");
    let published: Published = stdout(&hub.larder(&["publish", dir, "--json"]).await);
    let list: HotList = stdout(&hub.larder(&["list", "show", "--json"]).await);
    let entry = list.entry(published.infohash).expect("is listed");
    assert_eq!((entry.name.as_str(), entry.size_bytes), ("season 1", 250_000));
    let text = String::from_utf8(hub.larder(&["list", "show"]).await.stdout).expect("text");
    assert!(text.contains(&published.infohash.to_string()), "{text}");

    let again: Published = stdout(&hub.larder(&["publish", dir, "--lease", "60", "--json"]).await);
    assert!(again.already_known && again.epoch > published.epoch);

    let infohash = published.infohash.to_string();
    let args = ["list", "revoke", &infohash, "--reason", "takedown", "--json"];
    let revoked: Revoked = stdout(&hub.larder(&args).await);
    assert_eq!(revoked.infohash, published.infohash);
    let refused = hub.larder(&args).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).starts_with("larder: the hub says: "), "{}", stderr(&refused));
}

#[tokio::test]
async fn makes_claim_codes_and_shows_devices() {
    let hub = Hub::start().await;
    let codes: ClaimCodesResponse =
        stdout(&hub.larder(&["node", "claim", "--count", "3", "--json"]).await);
    assert_eq!(codes.claim_codes.len(), 3);
    let device = Device::new(1);
    let id = device.enrol(&hub, &codes.claim_codes[2]).await.expect("enrols").device;
    let text = String::from_utf8(hub.larder(&["node", "list"]).await.stdout).expect("text");
    assert!(text.contains(&id), "{text}");
}

/// Cuts the first long connection after some of the upload, and says where the second one began.
async fn flaky_relay(hub: &Hub) -> (String, tokio::task::JoinHandle<u64>) {
    let target = hub.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let resumed_at = tokio::spawn(async move {
        let mut cut = false;
        loop {
            let (client, _) = listener.accept().await.expect("accepts");
            let upstream = TcpStream::connect(&target).await.expect("connects");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_hub, mut to_hub) = upstream.into_split();
            let back = tokio::spawn(async move {
                // Either side may close; the other notices by itself.
                let _ = copy(&mut from_hub, &mut to_client).await;
            });
            let mut seen = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                if to_hub.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                seen.extend(&buffer[..read]);
                if !cut && seen.len() > 2_000_000 {
                    cut = true;
                    back.abort();
                    break;
                }
                let offset = offset(&seen);
                if cut && let Some(offset) = offset {
                    tokio::spawn(async move { copy(&mut from_client, &mut to_hub).await });
                    // From here on, everything passes.
                    tokio::spawn(pass(listener, target));
                    return offset;
                }
            }
        }
    });
    (url, resumed_at)
}

async fn pass(listener: TcpListener, target: String) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut upstream = TcpStream::connect(&target).await.expect("connects");
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        });
    }
}

fn offset(request: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(request);
    let digits = text.split("?offset=").nth(1)?.split(' ').next()?;
    digits.parse().ok()
}

#[tokio::test]
async fn publish_survives_a_lost_connection() {
    let hub = Hub::start().await;
    let bytes = noise(3, 8_000_000);
    let file = hub.scratch().join("film.mp4");
    std::fs::write(&file, &bytes).expect("writes");
    let (url, resumed_at) = flaky_relay(&hub).await;
    let file = file.to_str().expect("text");
    let published: Published =
        stdout(&hub.larder(&["publish", file, "--json", "--hub", &url]).await);
    let resumed_at = resumed_at.await.expect("was used");
    assert!(resumed_at > 0 && resumed_at < 8_000_000, "continued at {resumed_at}");
    let origin = hub.get(&format!("origin/{}/film.mp4", published.infohash), &[]).await;
    assert_eq!(origin.bytes().await.expect("a body"), bytes);
}

#[tokio::test]
async fn says_what_to_do() {
    let hub = Hub::start().await;
    for (args, says) in [
        (&["list", "show", "--hub", "http://127.0.0.1:1/"][..], "is it running"),
        (&["list", "show", "--hub", "ftp://x/"], "http:// or https://"),
        (&["list", "show", "--token-file", "/nowhere"], "--token-file"),
        (&["publish", "/nowhere"], "/nowhere: No such file"),
    ] {
        let output = hub.larder(args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1);
    }
    assert_eq!(
        hub.larder(&["list", "revoke", "xyz", "--reason", "x"]).await.status.code(),
        Some(2)
    );
    let wrong = hub.scratch().join("token");
    std::fs::write(&wrong, "wrong").expect("writes");
    let output = hub.larder(&["list", "show", "--token-file", wrong.to_str().expect("text")]).await;
    assert!(stderr(&output).contains("operator-token"), "{}", stderr(&output));
}

#[test]
fn the_hub_refuses_to_start_wrongly() {
    let dir = tempfile::tempdir().expect("a folder");
    let hub = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-hub"));
        command.args(args).current_dir(dir.path()).output().expect("runs")
    };
    let output = hub(&["run", "--data-dir", "d"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("larder-hub init --data-dir d"), "{}", stderr(&output));
    assert!(hub(&["init", "--data-dir", "d"]).status.success());
    let root = std::fs::read(dir.path().join("d/root.json")).expect("reads");
    let output = hub(&["init", "--data-dir", "d"]);
    assert_eq!(output.status.code(), Some(73));
    assert_eq!(std::fs::read(dir.path().join("d/root.json")).expect("reads"), root);

    std::fs::write(dir.path().join("bad.toml"), "listen = \"127.0.0.1:0\"\nlissten = 1\n")
        .expect("writes");
    let output = hub(&["run", "--config", "bad.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("bad.toml:2: "), "{}", stderr(&output));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("an address").to_string();
    let output = hub(&["run", "--data-dir", "d", "--listen", &address]);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));

    let output = hub(&["--print-default-config"]);
    assert!(output.status.success());
    std::fs::write(dir.path().join("hub.toml"), &output.stdout).expect("writes");
    let check = |file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(["config", "check", file]).current_dir(dir.path()).output().expect("runs")
    };
    assert_eq!(String::from_utf8_lossy(&check("hub.toml").stdout), "hub.toml: ok\n");
    let output = check("bad.toml");
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).starts_with("bad.toml:2: "), "{}", stderr(&output));
}

#[tokio::test]
async fn two_hubs_cannot_share_a_data_folder() {
    let hub = Hub::start().await;
    let mut second = tokio::process::Command::new(env!("CARGO_BIN_EXE_larder-hub"));
    second.arg("run").arg("--data-dir").arg(hub.data()).args(["--listen", "127.0.0.1:0"]);
    let output = second.output().await.expect("runs");
    assert_eq!(output.status.code(), Some(75));
    assert!(stderr(&output).contains("another larder-hub"), "{}", stderr(&output));
    assert!(hub.data().join("endpoints.json").exists(), "the first one's file is untouched");
}

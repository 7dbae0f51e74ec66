use std::path::Path;

use tough::{IntoVec, RepositoryLoader, TargetName};
use url::Url;

use super::*;
use crate::hub::keys;

const DAY: u64 = 86_400;

fn list(text: &str) -> Vec<Target> {
    vec![
        Target { name: "hotlist.json", bytes: text.as_bytes().to_vec() },
        Target { name: "policy.json", bytes: b"{}".to_vec() },
    ]
}

fn now() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds(since.expect("after 1970").as_secs())
}

async fn new_repo(dir: &Path, at: UnixSeconds) -> Repo {
    keys::create(dir).expect("creates keys");
    let role_keys = RoleKeys::read(dir).expect("reads keys");
    Repo::create(dir.join("tuf"), role_keys, Metadata::default(), &list("one"), at)
        .await
        .expect("creates")
}

async fn load(dir: &Path) -> Result<tough::Repository, tough::error::Error> {
    let root = std::fs::read(dir.join("tuf/metadata/1.root.json")).expect("the first root");
    let url = |folder: &str| {
        Url::from_directory_path(dir.join("tuf").join(folder)).expect("an absolute path")
    };
    RepositoryLoader::new(&root, url("metadata"), url("targets")).load().await
}

async fn read_list(dir: &Path) -> String {
    let repository = load(dir).await.expect("a device can read it");
    let name = TargetName::new("hotlist.json").expect("a name");
    let bytes = repository.read_target(&name).await.expect("reads").expect("is there");
    String::from_utf8(bytes.into_vec().await.expect("verifies")).expect("text")
}

#[tokio::test]
async fn tough_reads_what_was_published() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut repo = new_repo(dir.path(), now()).await;
    assert_eq!(read_list(dir.path()).await, "one");
    repo.publish(&list("two"), now()).await.expect("publishes");
    assert_eq!(read_list(dir.path()).await, "two");
    assert_eq!(repo.target("hotlist.json").expect("reads"), Some(b"two".to_vec()));

    let keys = RoleKeys::read(dir.path()).expect("reads keys");
    let mut again =
        Repo::open(dir.path().join("tuf"), keys, Metadata::default()).expect("opens again");
    again.publish(&list("three"), now()).await.expect("publishes");
    let repository = load(dir.path()).await.expect("loads");
    assert_eq!(repository.targets().signed.version.get(), 3);
    assert_eq!(repository.snapshot().signed.version.get(), 3);
    assert_eq!(repository.timestamp().signed.version.get(), 3);
}

#[tokio::test]
async fn expiry_dates_have_no_fractions() {
    let dir = tempfile::tempdir().expect("a folder");
    new_repo(dir.path(), now()).await;
    for name in ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"] {
        let text =
            std::fs::read_to_string(dir.path().join("tuf/metadata").join(name)).expect("is there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let expires = json["signed"]["expires"].as_str().expect("a date");
        assert_eq!(expires.len(), "2026-11-21T00:00:00Z".len(), "{name}: {expires}");
        assert!(expires.ends_with('Z') && !expires.contains('.'), "{name}: {expires}");
    }
}

#[tokio::test]
async fn renews_each_role_at_half_of_its_life() {
    let dir = tempfile::tempdir().expect("a folder");
    let start = now();
    let mut repo = new_repo(dir.path(), start).await;
    let at = |seconds: u64| UnixSeconds(start.0 + seconds);
    let versions = |repo: &Repo| {
        let Current { targets, snapshot, timestamp } = &repo.current;
        [repo.root.version, targets.version, snapshot.version, timestamp.version]
            .map(std::num::NonZeroU64::get)
    };
    assert!(!repo.renew(at(DAY / 2)).await.expect("renews"), "not before");
    assert!(repo.renew(at(DAY / 2 + 1)).await.expect("renews"));
    assert_eq!(versions(&repo), [1, 1, 1, 2]);
    assert!(repo.renew(at(7 * DAY / 2 + 1)).await.expect("renews"));
    assert_eq!(versions(&repo), [1, 2, 2, 3]);
    repo.renew(at(366 * DAY)).await.expect("renews");
    assert_eq!(versions(&repo), [2, 3, 3, 4]);
    assert_eq!(read_list(dir.path()).await, "one", "the first root still leads to the newest");
    assert!(repo.root_file().ends_with("2.root.json"));
}

#[tokio::test]
async fn keeps_superseded_files_for_readers_in_the_middle_of_a_refresh() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut repo = new_repo(dir.path(), now()).await;
    for text in ["two", "three"] {
        repo.publish(&list(text), now()).await.expect("publishes");
    }
    let files = |folder: &str| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir.path().join("tuf").join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    assert_eq!(files("targets").len(), 4, "three lists and a policy");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in files("targets").iter().chain(&files("metadata")) {
        let file = std::fs::File::options().write(true).open(path).expect("opens");
        file.set_modified(long_ago).expect("sets");
    }
    repo.publish(&list("four"), now()).await.expect("publishes");
    assert_eq!(files("targets").len(), 3, "the newest two lists and the policy");
    let mut names: Vec<String> = files("metadata")
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    let expected = [
        "1.root.json",
        "3.snapshot.json",
        "3.targets.json",
        "4.snapshot.json",
        "4.targets.json",
        "timestamp.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(read_list(dir.path()).await, "four");
}

#[tokio::test]
async fn an_expired_timestamp_is_refused_by_the_reader() {
    let dir = tempfile::tempdir().expect("a folder");
    new_repo(dir.path(), UnixSeconds(now().0 - 2 * DAY)).await;
    let error = load(dir.path()).await.expect_err("expired");
    assert!(matches!(error, tough::error::Error::ExpiredMetadata { .. }), "{error}");
}

#[tokio::test]
async fn serves_files_of_the_repository_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    new_repo(dir.path(), now()).await;
    let tuf = dir.path().join("tuf");
    let get = |name: &str| serve(&tuf, "metadata", name).expect("no trouble");
    assert!(get("1.root.json").is_some_and(|f| f.immutable && f.etag.len() == 66));
    assert!(get("timestamp.json").is_some_and(|f| !f.immutable));
    for name in ["", ".", "..", "../../keys/root.pk8", "9.root.json", "a/b", ".new-x", "%2e"] {
        // "." and "" would be the folder itself.
        assert!(serve(&tuf, "metadata", name).is_ok_and(|f| f.is_none()), "{name}");
    }
}

use futures_util::stream;

use super::*;
use crate::api::hub::UploadFile;

fn file(path: &[&str], length: u64) -> UploadFile {
    UploadFile { path: path.iter().map(|c| (*c).to_owned()).collect(), length }
}

fn single(name: &str, length: u64) -> NewUpload {
    NewUpload {
        name: name.into(),
        directory: false,
        files: vec![file(&[name], length)],
        fingerprint: String::new(),
    }
}

fn directory(files: Vec<UploadFile>) -> NewUpload {
    NewUpload { name: "dir".into(), directory: true, files, fingerprint: String::new() }
}

fn body(chunks: &[&'static str]) -> impl Stream<Item = Result<Bytes, &'static str>> + use<> {
    let items: Vec<_> = chunks
        .iter()
        .map(|c| if *c == "!" { Err("lost") } else { Ok(Bytes::from_static(c.as_bytes())) })
        .collect();
    stream::iter(items)
}

#[tokio::test]
async fn continues_where_a_lost_connection_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let uploads = Uploads::new(dir.path().into());
    let id = uploads.open(&single("film.mp4", 10)).expect("opens").id;
    let claim = uploads.claim(&id).expect("free");
    assert!(matches!(uploads.claim(&id), Err(UploadError::Busy)));
    let error = uploads.receive(&claim, 0, body(&["abcd", "!"])).await.expect_err("lost");
    assert!(matches!(error, UploadError::Interrupted(state) if state.received_bytes == 4));
    let error = uploads.receive(&claim, 0, body(&["abcd"])).await.expect_err("wrong place");
    assert!(matches!(error, UploadError::WrongOffset(state) if state.received_bytes == 4));
    assert!(matches!(uploads.hash(&id, false), Err(UploadError::Incomplete(_))));

    let found = uploads.open(&single("film.mp4", 10)).expect("finds");
    assert_eq!((found.id.as_str(), found.received_bytes), (id.as_str(), 4));
    let other = NewUpload { fingerprint: "other".into(), ..single("film.mp4", 10) };
    assert_eq!(uploads.open(&other).expect("opens").received_bytes, 0);

    let error = uploads.receive(&claim, 4, body(&["efghij", "k"])).await.expect_err("too much");
    assert!(matches!(error, UploadError::TooManyBytes(10)));
    let hashed = uploads.hash(&id, false).expect("complete");
    assert_eq!(fs::read(&hashed.blob).expect("reads"), b"abcdefghij");
    drop(claim);
    assert!(uploads.claim(&id).is_ok());
}

#[test]
fn hashes_every_piece() {
    let dir = tempfile::tempdir().expect("a folder");
    let uploads = Uploads::new(dir.path().into());
    let data: Vec<u8> = (0..150_000u32).map(|n| n as u8).collect();
    let files = vec![file(&["a", "b"], 100_000), file(&["c"], 50_000)];
    let id = uploads.open(&directory(files)).expect("opens").id;
    fs::write(uploads.data(&id), &data).expect("writes");
    let hashed = uploads.hash(&id, true).expect("hashes");
    let torrent = metainfo::wrap_info(&hashed.info, &[], &[]);
    let read = Metainfo::parse_expecting(&torrent, hashed.infohash).expect("parses");
    assert_eq!((read.piece_count(), read.private, read.files.len()), (3, true, 2));
    for (piece, chunk) in data.chunks(65_536).enumerate() {
        assert!(read.verifies(piece as u32, chunk));
    }
}

#[test]
fn refuses_hostile_names() {
    let deep = vec!["x"; MAX_PATH_COMPONENTS + 1];
    for name in ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0b", &"x".repeat(256)] {
        assert!(matches!(check(&single(name, 1)), Err(UploadError::Name { .. })), "{name}");
        let inside = directory(vec![file(&["ok", name], 1)]);
        assert!(matches!(check(&inside), Err(UploadError::Name { .. })), "{name}");
    }
    let shapes = [
        directory(vec![]),
        directory(vec![file(&[], 1)]),
        directory(vec![file(&deep, 1)]),
        directory(vec![file(&["a"], 1), file(&["a"], 1)]),
        directory(vec![file(&["a"], 1), file(&["a", "b"], 1)]),
        directory(vec![file(&["a"], u64::MAX), file(&["b"], 1)]),
        single("film.mp4", 0),
        NewUpload { files: vec![file(&["other"], 1)], ..single("film.mp4", 1) },
    ];
    for shape in &shapes {
        assert!(matches!(check(shape), Err(UploadError::Shape(_))), "{shape:?}");
    }
    assert!(check(&single("电影 – ü.mp4", 1)).is_ok());
}

#[test]
fn removes_what_was_given_up_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let uploads = Uploads::new(dir.path().join("uploads"));
    uploads.remove_abandoned().expect("no folder yet");
    let ids = ["old", "busy", "new"].map(|name| uploads.open(&single(name, 5)).expect("opens").id);
    for id in &ids[..2] {
        let data = fs::File::options().write(true).open(uploads.data(id)).expect("opens");
        data.set_modified(SystemTime::now() - ABANDONED_AFTER * 2).expect("sets");
    }
    let _claim = uploads.claim(&ids[1]).expect("free");
    uploads.remove_abandoned().expect("removes");
    let left = ids.map(|id| uploads.state(&id).is_ok());
    assert_eq!(left, [false, true, true]);
}

#[test]
fn ids_are_not_paths() {
    let dir = tempfile::tempdir().expect("a folder");
    let uploads = Uploads::new(dir.path().join("uploads"));
    for id in ["", "..", "../../etc/passwd", &"f".repeat(32), &"é".repeat(16)] {
        assert!(matches!(uploads.state(id), Err(UploadError::Unknown(_))), "{id}");
    }
}

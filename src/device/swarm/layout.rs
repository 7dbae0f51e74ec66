//! Where the bytes of a content lie at a web seed (BEP 19): in which file, and under which URL. Names
//! from the torrent become segments of a URL, never more, and never a path on this device.

use std::ops::Range;

use url::Url;

use crate::logic::metainfo::{File, Metainfo};

/// A run of bytes that lies in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub file: usize,
    pub bytes: Range<u64>,
    pub file_bytes: u64,
}

/// The first stretch of these bytes that lies in one file; `None` when there is nothing left. Empty
/// files take part in nothing.
pub(super) fn first_span(metainfo: &Metainfo, bytes: Range<u64>) -> Option<Span> {
    let mut file_start = 0;
    for (file, File { length, .. }) in metainfo.files.iter().enumerate() {
        let file_end = file_start + length;
        let (from, to) = (bytes.start.max(file_start), bytes.end.min(file_end));
        if from < to {
            let bytes = from - file_start..to - file_start;
            return Some(Span { file, bytes, file_bytes: *length });
        }
        file_start = file_end;
    }
    None
}

/// BEP 19: the URL is the file itself, or, if it ends in a slash or the torrent has several files,
/// the folder that the torrent's name is in.
pub(super) fn file_url(seed: &Url, metainfo: &Metainfo, file: usize) -> Url {
    let mut url = seed.clone();
    if !metainfo.directory && !seed.path().ends_with('/') {
        return url;
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(&metainfo.name);
        if metainfo.directory {
            path.extend(&metainfo.files[file].path);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::metainfo::{NewLayout, NewMetainfo};

    const PIECE: u32 = 16 * 1024;

    fn metainfo(name: &str, files: &[(&[&str], u64)]) -> Metainfo {
        let total: u64 = files.iter().map(|(_, length)| length).sum();
        let files: Vec<File> = files
            .iter()
            .map(|(path, length)| File {
                path: path.iter().map(|c| (*c).to_owned()).collect(),
                length: *length,
            })
            .collect();
        let layout = match &files[..] {
            [one] if one.path == [name] => NewLayout::Single { length: one.length },
            _ => NewLayout::Directory { files: &files },
        };
        let (torrent, _) = NewMetainfo {
            name,
            piece_length: PIECE,
            pieces: &vec![0; total.div_ceil(u64::from(PIECE)) as usize * 20],
            layout,
            private: false,
            tracker_tiers: &[],
            web_seeds: &[],
        }
        .encode();
        Metainfo::parse(&torrent).expect("own format")
    }

    fn url_of(seed: &str, metainfo: &Metainfo, file: usize) -> String {
        file_url(&seed.parse().expect("a URL"), metainfo, file).to_string()
    }

    #[test]
    fn finds_the_file_where_bep_19_puts_it() {
        let single = metainfo("my film", &[(&["my film"], 100)]);
        assert_eq!(url_of("http://cdn.example/x.mp4", &single, 0), "http://cdn.example/x.mp4");
        assert_eq!(url_of("http://cdn.example/d/", &single, 0), "http://cdn.example/d/my%20film");
        let several = metainfo("my film", &[(&["a?b"], 100), (&["sub", "c#d"], 100)]);
        let want = "http://cdn.example/d/my%20film/a%3Fb";
        assert_eq!(url_of("http://cdn.example/d/", &several, 0), want);
        assert_eq!(url_of("http://cdn.example/d", &several, 0), want);
        let want = "http://cdn.example/d/my%20film/sub/c%23d";
        assert_eq!(url_of("http://cdn.example/d", &several, 1), want);
    }

    #[test]
    fn never_leaves_the_folder_of_the_web_seed_nor_its_host() {
        let long = "x".repeat(70_000);
        let names: [&[&str]; 10] = [
            &["..", "..", "etc", "passwd"],
            &["a/../../b"],
            &["/etc/passwd"],
            &["//evil.example/x"],
            &["http://evil.example/x"],
            &["\\\\evil.example\\x"],
            &["a\0b"],
            &["%2e%2e", "%2f..%2f"],
            &["a\r\nHost: evil.example"],
            &[&long],
        ];
        let files: Vec<_> = names.iter().map(|path| (*path, 100)).collect();
        let hostile = metainfo("film", &files);
        for file in 0..files.len() {
            let url = file_url(&"http://cdn.example/d/".parse().expect("a URL"), &hostile, file);
            assert_eq!(url.host_str(), Some("cdn.example"));
            assert!(url.path().starts_with("/d/film/"), "{url}");
            assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
            let wild = |c: char| c.is_control() || c == '\\' || c == ' ';
            assert!(!url.as_str().contains(wild), "{url}");
        }
        for name in ["..", ".", "../../x", "/x", "a\0b"] {
            let hostile = metainfo(name, &[(&["a"], 100), (&["b"], 100)]);
            let url = url_of("http://cdn.example/d/", &hostile, 0);
            assert!(url.starts_with("http://cdn.example/d/"), "{name:?}: {url}");
        }
    }

    #[test]
    fn splits_bytes_at_the_borders_of_files() {
        let files: [(&[&str], u64); 4] =
            [(&["a"], 10_000), (&["empty"], 0), (&["b"], 1_000), (&["c"], 30_000)];
        let m = metainfo("film", &files);
        let span = |file, bytes, file_bytes| Some(Span { file, bytes, file_bytes });
        assert_eq!(first_span(&m, 0..16_384), span(0, 0..10_000, 10_000));
        assert_eq!(first_span(&m, 10_000..16_384), span(2, 0..1_000, 1_000));
        assert_eq!(first_span(&m, 11_000..16_384), span(3, 0..5_384, 30_000));
        assert_eq!(first_span(&m, 32_768..41_000), span(3, 21_768..30_000, 30_000));
        assert_eq!(first_span(&m, 41_000..41_000), None);
        assert_eq!(first_span(&m, 90_000..91_000), None);
    }
}

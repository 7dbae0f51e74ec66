//! Downloader: CDN first, then peers.

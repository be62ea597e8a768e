//! Images of a conversation, with their format detected by content.

mod pixels;

use bytes::Bytes;

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file's bytes.
    pub data: Bytes,
    /// The format of `data`.
    pub kind: ImageKind,
}

/// Image formats that Codex supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// image/png
    Png,
    /// image/jpeg
    Jpeg,
    /// image/webp
    Webp,
    /// image/gif
    Gif,
}

impl ImageKind {
    /// Detects the format by content. Returns `None` for a truncated file, which Codex would drop silently.
    pub fn detect(data: &[u8]) -> Option<Self> {
        imagesize::blob_size(data).ok()?;
        Self::detect_header(data).filter(|kind| kind.is_complete(data))
    }

    /// Returns the number of pixels of the largest frame, or `None` if the headers have no size.
    pub fn pixels(self, data: &[u8]) -> Option<u64> {
        pixels::largest_frame(self, data)
    }

    fn detect_header(data: &[u8]) -> Option<Self> {
        // The library detects more formats than Codex supports.
        match imagesize::image_type(data) {
            Ok(imagesize::ImageType::Png) => Some(Self::Png),
            Ok(imagesize::ImageType::Jpeg) => Some(Self::Jpeg),
            Ok(imagesize::ImageType::Webp) => Some(Self::Webp),
            Ok(imagesize::ImageType::Gif) => Some(Self::Gif),
            Ok(_) | Err(_) => None,
        }
    }

    /// Returns `true` if the file contains the end marker of its format. Any bytes may follow it.
    fn is_complete(self, data: &[u8]) -> bool {
        let contains = |end: &[u8]| data.windows(end.len()).rev().any(|window| window == end);
        match self {
            Self::Png => contains(b"IEND\xaeB`\x82"),
            Self::Jpeg => contains(b"\xff\xd9"),
            Self::Gif => contains(b"\x00\x3b"),
            Self::Webp => {
                let size = data.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
                size.and_then(|size| usize::try_from(size).ok()).is_some_and(|size| size + 8 <= data.len())
            }
        }
    }

    /// Returns the file extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Gif => "gif",
        }
    }
}

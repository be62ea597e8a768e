//! Images of a conversation: their format, told by content.

use bytes::Bytes;

/// A picture.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file's bytes.
    pub data: Bytes,
    /// What they are.
    pub kind: ImageKind,
}

/// Formats of pictures that Codex takes.
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
    /// Tells the format by content. A file that is cut short has none: Codex would leave it out in silence.
    pub fn of(data: &[u8]) -> Option<Self> {
        imagesize::blob_size(data).ok()?;
        Self::of_head(data).filter(|kind| kind.is_whole(data))
    }

    fn of_head(data: &[u8]) -> Option<Self> {
        // The list is an allow list: whatever else the library may know stays refused.
        match imagesize::image_type(data) {
            Ok(imagesize::ImageType::Png) => Some(Self::Png),
            Ok(imagesize::ImageType::Jpeg) => Some(Self::Jpeg),
            Ok(imagesize::ImageType::Webp) => Some(Self::Webp),
            Ok(imagesize::ImageType::Gif) => Some(Self::Gif),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether the file has the end that its format wants; anything may follow it.
    fn is_whole(self, data: &[u8]) -> bool {
        let holds = |end: &[u8]| data.windows(end.len()).rev().any(|window| window == end);
        match self {
            Self::Png => holds(b"IEND\xaeB`\x82"),
            Self::Jpeg => holds(b"\xff\xd9"),
            Self::Gif => holds(b"\x00\x3b"),
            Self::Webp => {
                let told = data.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
                told.and_then(|told| usize::try_from(told).ok()).is_some_and(|told| told + 8 <= data.len())
            }
        }
    }

    /// The file extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Gif => "gif",
        }
    }
}

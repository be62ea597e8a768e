//! The number of pixels that the decoder of an image allocates, read from its headers. Pure.
//!
//! A file of a few kilobytes can decode to gigabytes. The headers that a decoder trusts count, also those behind the
//! first, so that a small first header hides no large frame.

use super::ImageKind;

/// Returns the pixels of the largest frame of a file. The frames of an animation are not added: Codex sends one picture.
/// Codex 0.169 takes 12 bytes per pixel of a PNG file with three channels of 8 bits, and 18 with four channels of 16 bits.
pub(super) fn largest_frame(kind: ImageKind, data: &[u8]) -> Option<u64> {
    let size = imagesize::blob_size(data).ok()?;
    let whole = area(u64::try_from(size.width).ok()?, u64::try_from(size.height).ok()?);
    Some(match kind {
        ImageKind::Png => whole,
        ImageKind::Webp => webp(data).unwrap_or(whole),
        ImageKind::Jpeg => jpeg_frames(data).fold(whole, u64::max),
        ImageKind::Gif => gif_frames(data).fold(whole, u64::max),
    })
}

fn area(width: u64, height: u64) -> u64 {
    width.saturating_mul(height)
}

fn u16_le(data: &[u8], at: usize) -> Option<u64> {
    let bytes = data.get(at..at + 2)?;
    Some(u64::from(u16::from_le_bytes(bytes.try_into().ok()?)))
}

fn u16_be(data: &[u8], at: usize) -> Option<u64> {
    let bytes = data.get(at..at + 2)?;
    Some(u64::from(u16::from_be_bytes(bytes.try_into().ok()?)))
}

/// Returns the pixels of a lossy WebP file. Its upper two bits are a scale for display, which the library includes.
fn webp(data: &[u8]) -> Option<u64> {
    const SIZE_BITS: u64 = 0x3fff;
    if data.get(12..16)? != b"VP8 " {
        return None;
    }
    Some(area(u16_le(data, 26)? & SIZE_BITS, u16_le(data, 28)? & SIZE_BITS))
}

/// Returns the pixels of each frame header of a JPEG file, up to its end marker.
fn jpeg_frames(data: &[u8]) -> impl Iterator<Item = u64> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            // Entropy-coded data follows the header of a scan. It has no marker but escaped bytes and restarts.
            while data.get(at)? != &0xff || matches!(data.get(at + 1)?, 0x00 | 0xd0..=0xd7 | 0xff) {
                at += 1;
            }
            let marker = *data.get(at + 1)?;
            if marker == 0xd9 {
                return None;
            }
            let segment = at + 2;
            if matches!(marker, 0x01 | 0xd8) {
                at = segment;
                continue;
            }
            at = segment + usize::try_from(u16_be(data, segment)?).ok()?.max(2);
            if matches!(marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) {
                return Some(area(u16_be(data, segment + 5)?, u16_be(data, segment + 3)?));
            }
        }
    })
}

/// Returns the pixels of each frame of a GIF file.
fn gif_frames(data: &[u8]) -> impl Iterator<Item = u64> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + data.get(10).map_or(0, |flags| table(*flags));
    std::iter::from_fn(move || {
        loop {
            match data.get(at)? {
                0x2c => {
                    let pixels = area(u16_le(data, at + 5)?, u16_le(data, at + 7)?);
                    // The minimum size of a code precedes the blocks.
                    at = after_blocks(data, at + 11 + table(*data.get(at + 9)?))?;
                    return Some(pixels);
                }
                0x21 => at = after_blocks(data, at + 2)?,
                _ => return None,
            }
        }
    })
}

/// Returns the place behind a list of blocks of a GIF file.
fn after_blocks(data: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*data.get(at)?);
        at += length + 1;
        if length == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gif(screen: u16, frames: &[u16]) -> Vec<u8> {
        let side = |side: u16| [side.to_le_bytes(), side.to_le_bytes()].concat();
        let mut file = [b"GIF89a".as_slice(), &side(screen), &[0x80, 0, 0, 0, 0, 0, 9, 9, 9]].concat();
        for frame in frames {
            file.extend([0x21, 0xf9, 4, 0, 0, 0, 0, 0, 0x2c, 0, 0, 0, 0]);
            file.extend(side(*frame));
            file.extend([0, 2, 2, 0x4c, 0x01, 0]);
        }
        file.push(0x3b);
        file
    }

    fn jpeg(frames: &[u16]) -> Vec<u8> {
        // The first segment holds what looks like a frame, as a preview in EXIF does.
        let mut file = vec![0xff, 0xd8, 0xff, 0xe1, 0, 12, 0xff, 0xc0, 0, 8, 8, 0xff, 0xff, 0xff, 0xff, 3];
        for side in frames {
            let [high, low] = side.to_be_bytes();
            file.extend([0xff, 0xc0, 0, 8, 8, high, low, high, low, 1, 0xff, 0xda, 0, 2, 1, 0xff, 0, 5]);
        }
        file.extend([0xff, 0xd9]);
        file
    }

    #[test]
    fn largest_frame_of_a_gif_may_exceed_its_screen() {
        assert_eq!(largest_frame(ImageKind::Gif, &gif(10, &[])), Some(100));
        assert_eq!(largest_frame(ImageKind::Gif, &gif(10, &[4, 65_535, 3])), Some(65_535 * 65_535));
        // A long animation of small frames counts once.
        assert_eq!(largest_frame(ImageKind::Gif, &gif(10, &[10; 500])), Some(100));
        assert_eq!(largest_frame(ImageKind::Gif, &gif(10, &[65_535])[..30]), Some(100), "cut off");
    }

    #[test]
    fn largest_frame_of_a_jpeg_ignores_previews() {
        assert_eq!(largest_frame(ImageKind::Jpeg, &jpeg(&[20])), Some(400));
        assert_eq!(largest_frame(ImageKind::Jpeg, &jpeg(&[20, 60_000])), Some(3_600_000_000));
    }

    #[test]
    fn largest_frame_of_a_webp_ignores_its_scale() {
        let mut file = b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a".to_vec();
        file.extend([0x0a, 0x40, 0x14, 0xc0]);
        assert_eq!(largest_frame(ImageKind::Webp, &file), Some(10 * 20));
    }
}

//! The markers of a JPEG stream (ITU-T T.81, Annex B): where a picture ends, what its header promises.

/// Start of image.
const SOI: u8 = 0xD8;
/// End of image.
const EOI: u8 = 0xD9;
/// Start of scan: entropy-coded data follows the segment.
const SOS: u8 = 0xDA;
/// Huffman tables.
const DHT: u8 = 0xC4;

/// Walks one picture from marker to marker, so that a thumbnail inside of a segment does not end it. It goes on where it
/// stopped when more bytes have come, and looks at each byte of entropy-coded data once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanner {
    /// Where the walk goes on; beyond the data while a segment has not come whole.
    at: usize,
    /// Width and height of the frame header; a height of 0 is told by a later marker, which no camera uses.
    pub(crate) size: Option<[u32; 2]>,
    /// Where the first scan starts.
    pub(crate) scan: Option<usize>,
    /// Huffman tables come before the first scan.
    pub(crate) tables: bool,
    /// Sequential, Huffman-coded, 8 bits a sample (SOF0, SOF1), as cameras send it.
    pub(crate) sequential: bool,
    /// How many scans there are.
    pub(crate) scans: u32,
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To the end of the bytes, not of the picture.
    More,
    /// The picture ends before this position.
    End(usize),
    /// To a position at which no JPEG goes on.
    Broken(usize),
}

impl Scanner {
    /// Walks on in `data`, which starts with the picture's first byte and only grows from call to call.
    pub(crate) fn walk(&mut self, data: &[u8]) -> Walk {
        self.try_walk(data).unwrap_or(Walk::More)
    }

    /// `None` where a byte is missing.
    fn try_walk(&mut self, data: &[u8]) -> Option<Walk> {
        if self.at == 0 {
            if data.get(..2)? != [0xFF, SOI] {
                return Some(Walk::Broken(0));
            }
            self.at = 2;
        }
        loop {
            // Between segments as in a scan, what is no marker is passed over, as every decoder does.
            let rest = data.get(self.at..)?;
            self.at += rest.iter().position(|&b| b == 0xFF).unwrap_or(rest.len());
            match *data.get(self.at + 1)? {
                // A fill byte before the marker proper.
                0xFF => self.at += 1,
                // Stuffing; TEM; the restart markers.
                0x00 | 0x01 | 0xD0..=0xD7 => self.at += 2,
                EOI => return Some(Walk::End(self.at + 2)),
                SOI => return Some(Walk::Broken(self.at)),
                marker => {
                    let header = data.get(self.at + 2..self.at + 4)?;
                    let length = usize::from(u16::from_be_bytes([header[0], header[1]]));
                    if length < 2 {
                        return Some(Walk::Broken(self.at + 2));
                    }
                    self.note(marker, data)?;
                    self.at += 2 + length;
                }
            }
        }
    }

    /// Remembers what a segment says. `None` if it has not come far enough.
    fn note(&mut self, marker: u8, data: &[u8]) -> Option<()> {
        match marker {
            SOS => {
                self.scan = self.scan.or(Some(self.at));
                self.scans += 1;
            }
            DHT if self.scan.is_none() => self.tables = true,
            // The frame headers are C0 to CF but for DHT, JPG (C8) and DAC (CC).
            0xC0..=0xCF if !matches!(marker, DHT | 0xC8 | 0xCC) => {
                let header = data.get(self.at + 5..self.at + 9)?;
                let number = |i: usize| u32::from(u16::from_be_bytes([header[i], header[i + 1]]));
                self.size = self.size.or(Some([number(2), number(0)]));
                self.sequential = matches!(marker, 0xC0 | 0xC1);
            }
            _ => {}
        }
        Some(())
    }
}

/// The position of the first start of a picture: SOI and the first byte of the marker after it.
pub(crate) fn find_start(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|w| w == [0xFF, SOI, 0xFF])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A thumbnail's end in a segment, fill bytes, a stuffed byte and a restart marker in the scan.
    pub(crate) const PICTURE: [u8; 40] = [
        0xFF, SOI, 0xFF, 0xE0, 0, 6, 0xFF, SOI, 0xFF, EOI, 0xFF, 0xFF, 0xC0, 0, 11, 8, 0, 48, 1, 64, 1, 0, 0x11, 0,
        0xFF, SOS, 0, 3, 1, 7, 0xFF, 0, 8, 0xFF, 0xD0, 9, 10, 0xFF, 0xFF, EOI,
    ];

    #[test]
    fn a_walk_ends_at_the_pictures_own_end_in_whatever_pieces_it_comes() {
        for step in 1..=PICTURE.len() {
            let mut scanner = Scanner::default();
            for end in (1..PICTURE.len()).step_by(step) {
                assert_eq!(scanner.walk(&PICTURE[..end]), Walk::More, "{end} bytes in steps of {step}");
            }
            let data = [&PICTURE[..], &[1, 2, 3]].concat();
            assert_eq!(scanner.walk(&data), Walk::End(PICTURE.len()), "in steps of {step}");
            assert_eq!((scanner.size, scanner.scan, scanner.tables), (Some([320, 48]), Some(24), false));
        }
    }

    #[test]
    fn what_is_no_jpeg_is_broken_where_it_ceases_to_be_one() {
        let walk = |data: &[u8]| Scanner::default().walk(data);
        assert_eq!(walk(b"\x89PNG"), Walk::Broken(0));
        assert_eq!(walk(&[0xFF, SOI, 0xFF, 0xE0, 0, 1]), Walk::Broken(4));
        // Another picture starts within.
        assert_eq!(walk(&[&PICTURE[..36], &PICTURE[..]].concat()), Walk::Broken(36));
        assert_eq!(walk(&[]), Walk::More);
    }

    #[test]
    fn tables_count_only_before_the_scan() {
        let table = [0xFF, DHT, 0, 2];
        let mut scanner = Scanner::default();
        scanner.walk(&[&PICTURE[..24], &table[..], &PICTURE[24..]].concat());
        assert!(scanner.tables);
        let mut scanner = Scanner::default();
        scanner.walk(&[&PICTURE[..37], &table[..], &[0xFF, EOI]].concat());
        assert!(!scanner.tables);
    }
}

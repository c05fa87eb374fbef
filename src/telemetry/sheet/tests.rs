use super::*;

fn uniform(width: u32, height: u32, colour: Colour) -> Rgb {
    Rgb { width, height, data: colour.repeat((width * height) as usize) }
}

fn tile(label: &str, probability: f32) -> Tile {
    let caption = vec![label.to_owned(), "photo.jpg".to_owned()];
    Tile { picture: uniform(224, 224, [9, 200, 99]), caption, probability: Some(probability), badges: Vec::new() }
}

fn pixel(picture: &Rgb, x: u32, y: u32) -> [u8; 3] {
    let at = (y as usize * picture.width as usize + x as usize) * 3;
    [picture.data[at], picture.data[at + 1], picture.data[at + 2]]
}

fn count(picture: &Rgb, colour: Colour) -> usize {
    picture.data.as_chunks::<3>().0.iter().filter(|p| **p == colour).count()
}

fn sheet(tiles: Vec<Tile>) -> Sheet {
    Sheet { title: "Title".into(), subtitle: "subtitle".into(), tiles, ..Sheet::default() }
}

#[test]
fn every_picture_is_on_the_sheet() {
    for n in [1, 2, 7, 40] {
        let drawn = sheet(vec![tile("cup", 0.5); n]).render();
        assert_eq!(drawn.data.len(), (drawn.width * drawn.height * 3) as usize);
        // All but the rounded upper corners.
        let found = count(&drawn, [9, 200, 99]);
        assert!((n * 224 * 224 - n * 100..=n * 224 * 224).contains(&found), "{n}: {found}");
    }
}

#[test]
fn the_bar_is_as_long_as_the_probability() {
    let bar = |p| count(&sheet(vec![tile("", p)]).render(), QUIET) as f64;
    let ratio = bar(0.9) / bar(0.3);
    assert!((2.8..3.2).contains(&ratio), "{ratio}");
}

#[test]
fn what_triggered_is_framed_in_its_colour() {
    let mut triggered = tile("cup", 0.9);
    let plain = sheet(vec![triggered.clone()]).render();
    triggered.badges = vec![("kitchen".into(), ACCENTS[1])];
    let framed = sheet(vec![triggered]).render();
    let middle = MARGIN as u32 + 112;
    let top = (MARGIN + HEADER + 24) as u32;
    assert_eq!(pixel(&framed, middle, top), ACCENTS[1]);
    assert_eq!(pixel(&plain, middle, top), [9, 200, 99]);
}

#[test]
fn nothing_too_long_too_many_or_odd_panics() {
    let mut odd = tile(&"a very long label indeed ".repeat(40), f32::NAN);
    odd.badges = (0..9).map(|i| (format!("rule number {i} – naïve…\u{7}猫"), ACCENTS[i % 6])).collect();
    odd.caption.extend(["x".repeat(500), String::new()]);
    let no_picture = Tile { picture: Rgb::default(), ..tile("none", 7.0) };
    let mut all = sheet(vec![odd, no_picture, Tile::default()]);
    all.footer = vec!["f".repeat(4000), "second".into()];
    all.banner = Some(uniform(1280, 720, [1, 2, 3]));
    let drawn = all.render();
    assert!(drawn.width < 2000, "{}", drawn.width);
    assert!(count(&drawn, [1, 2, 3]) > 1270 * 710);
    sheet(Vec::new()).render();
}

#[test]
fn a_long_run_is_cut_and_says_so() {
    let small = Tile { picture: uniform(8, 8, [9, 200, 99]), ..Tile::default() };
    let all = sheet(vec![small; MAX_TILES + 3]);
    assert_eq!(footer(&all), [format!("The first {MAX_TILES} of {} pictures.", MAX_TILES + 3)]);
    assert_eq!(count(&all.render(), [9, 200, 99]), MAX_TILES * 64);
}

#[test]
fn annotate_outlines_and_names() {
    let mut picture = uniform(100, 80, [0, 0, 0]);
    annotate(&mut picture, Rect { left: 10, top: 20, width: 50, height: 40 }, "a", ACCENTS[2]);
    assert_eq!(pixel(&picture, 11, 45), ACCENTS[2]);
    assert_eq!(pixel(&picture, 35, 45), [0, 0, 0]);
    annotate(&mut picture, Rect { left: 90, top: 70, width: 500, height: 400 }, "outside", ACCENTS[2]);
    assert_eq!((picture.width, picture.height, picture.data.len()), (100, 80, 24000));
}

#[test]
fn a_png_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheet.png");
    let drawn = sheet(vec![tile("cup", 0.5)]).render();
    write_png(&path, &drawn).unwrap();
    let read = image::open(&path).unwrap().into_rgb8();
    assert_eq!((read.width(), read.height(), read.into_raw()), (drawn.width, drawn.height, drawn.data));
    let wrong = Rgb { width: 4, height: 4, data: vec![0; 5] };
    assert!(png(&wrong).unwrap_err().to_string().contains("4x4"));
}

use super::*;
use crate::config::plan::{Flip, Rotation};

const UPRIGHT: Orientation = Orientation { rotate: Rotation::None, flip: None };

fn input(width: usize, height: usize, resize: Resize, format: TensorFormat) -> InputSpec {
    let preprocess = PreprocessSpec {
        resize,
        filter: Filter::Bilinear,
        order: ChannelOrder::Bgr,
        scale: 1.0,
        mean: [103.939, 116.779, 123.68],
        std: [1.0; 3],
    };
    InputSpec { height, width, format, preprocess }
}

/// Every pixel differs: red is the column, green the row, blue 7.
fn chart(width: u32, height: u32) -> Rgb {
    let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 7])).collect();
    Rgb { width, height, data }
}

fn uniform(width: u32, height: u32, colour: [u8; 3]) -> Rgb {
    Rgb { width, height, data: colour.repeat((width * height) as usize) }
}

mod areas {
    use super::*;

    fn check(area: Option<Area>, expected: Result<[u32; 4], &str>) {
        let rect = area_in_frame(area.as_ref(), 1280, 720);
        match (rect, expected) {
            (Ok(r), Ok(e)) => assert_eq!([r.left, r.top, r.width, r.height], e, "{area:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{area:?}: {error}"),
            (rect, expected) => panic!("{area:?}: {rect:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn table() {
        check(None, Ok([0, 0, 1280, 720]));
        check(Some(Area::Pixels([0, 0, 1280, 720])), Ok([0, 0, 1280, 720]));
        check(Some(Area::Pixels([1279, 719, 1, 1])), Ok([1279, 719, 1, 1]));
        check(Some(Area::Pixels([1, 0, 1280, 720])), Err("[1, 0, 1280, 720] (pixels) out of a frame of 1280x720"));
        check(Some(Area::Pixels([0, 700, 10, 21])), Err("outside of the frame"));
        check(Some(Area::Pixels([u32::MAX, 0, 2, 1])), Err("outside of the frame"));
        check(Some(Area::Pixels([3, 3, 0, 5])), Err("holds no pixel"));
        check(Some(Area::Fractions([0.3, 0.1, 0.4, 0.7])), Ok([384, 72, 512, 504]));
        check(Some(Area::Fractions([0.7, 0.0, 0.3, 1.0])), Ok([896, 0, 384, 720]));
        check(Some(Area::Fractions([0.1, 0.0, 0.9, 1.0])), Ok([128, 0, 1152, 720]));
        check(Some(Area::Fractions([0.5, 0.0, 0.6, 1.0])), Err("(fractions)"));
        check(Some(Area::Fractions([-0.1, 0.0, 0.6, 1.0])), Err("outside of the frame"));
        check(Some(Area::Fractions([f64::NAN, 0.0, 0.6, 1.0])), Err("outside of the frame"));
        check(Some(Area::Fractions([0.0, 0.0, 0.0001, 1.0])), Err("holds no pixel"));
    }

    #[test]
    fn fractions_that_touch_leave_no_gap() {
        for width in [3, 10, 479, 641] {
            let third =
                |i: f64| area_in_frame(Some(&Area::Fractions([i / 3.0, 0.0, 1.0 / 3.0, 1.0])), width, 9).unwrap();
            let (a, b, c) = (third(0.0), third(1.0), third(2.0));
            assert_eq!((a.left + a.width, b.left + b.width, c.left + c.width), (b.left, c.left, width));
        }
    }
}

mod orientation {
    use super::*;

    /// The corners of a 3x2 chart (`[column, row]`), left top and right bottom, after `rotate` and `flip`.
    fn check(rotate: Rotation, flip: Option<Flip>, left_top: [u8; 2], right_bottom: [u8; 2]) {
        let orientation = Orientation { rotate, flip };
        let (width, height) = oriented_size(orientation, 3, 2);
        let input = input(width as usize, height as usize, Resize::Stretch, TensorFormat::F32Nchw);
        let view = Preprocessor::new(&input, Fit::Stretch, orientation).view(&chart(3, 2), None).unwrap();
        assert_eq!((view.width, view.height), (width, height));
        let last = view.data.len() - 3;
        assert_eq!(
            (&view.data[..2], &view.data[last..last + 2]),
            (&left_top[..], &right_bottom[..]),
            "{orientation:?}"
        );
    }

    #[test]
    fn rotation_is_clockwise_and_the_mirror_comes_after() {
        use Rotation::{Half, None as Upright, Quarter, ThreeQuarters};
        check(Upright, None, [0, 0], [2, 1]);
        check(Quarter, None, [0, 1], [2, 0]);
        check(Half, None, [2, 1], [0, 0]);
        check(ThreeQuarters, None, [2, 0], [0, 1]);
        check(Upright, Some(Flip::Horizontal), [2, 0], [0, 1]);
        check(Upright, Some(Flip::Vertical), [0, 1], [2, 0]);
        check(Quarter, Some(Flip::Horizontal), [0, 0], [2, 1]);
        check(Quarter, Some(Flip::Vertical), [2, 1], [0, 0]);
        check(Half, Some(Flip::Horizontal), [0, 1], [2, 0]);
        check(ThreeQuarters, Some(Flip::Vertical), [0, 0], [2, 1]);
    }

    #[test]
    fn an_area_is_of_the_oriented_frame() {
        let orientation = Orientation { rotate: Rotation::Quarter, flip: None };
        let input = input(2, 3, Resize::Stretch, TensorFormat::F32Nchw);
        let mut preprocessor = Preprocessor::new(&input, Fit::Crop, orientation);
        // A chart of 10x6 is 6x10 after a quarter turn: column x shows row 5 - x, row y shows column y.
        let view = preprocessor.view(&chart(10, 6), Some(&Area::Pixels([4, 7, 2, 3]))).unwrap();
        assert_eq!(view.data, [[7, 1, 7], [7, 0, 7], [8, 1, 7], [8, 0, 7], [9, 1, 7], [9, 0, 7]].concat());
    }
}

mod fits {
    use super::*;

    /// Resized size and crop offset of a frame for the torchvision convention, from its formulas by hand.
    fn check(size: [u32; 2], resized: [u32; 2], offset: [u32; 2]) {
        let input = input(224, 224, Resize::ShorterSide(256), TensorFormat::F32Nchw);
        let (across, down) = geometry::fit(&input, Fit::Crop, size[0], size[1]);
        assert_eq!([across.resized, down.resized], resized, "{size:?}");
        assert_eq!([across.window, down.window], offset.map(|o| o..o + 224), "{size:?}");
    }

    #[test]
    fn shorter_side_and_centre_crop() {
        check([1280, 720], [455, 256], [116, 16]); // 455.1; 115.5 to even
        check([720, 1280], [256, 455], [16, 116]);
        check([640, 480], [341, 256], [58, 16]); // 58.5 to even
        check([300, 300], [256, 256], [16, 16]);
        check([301, 200], [385, 256], [80, 16]); // 385.28; 80.5 to even
        check([1, 1], [256, 256], [16, 16]);
        check([100_000, 1], [25_600_000, 256], [12_799_888, 16]);
    }

    #[test]
    fn pad_shows_everything_between_grey_bars() {
        let input = input(32, 32, Resize::ShorterSide(36), TensorFormat::F32Nchw);
        let mut preprocessor = Preprocessor::new(&input, Fit::Pad, UPRIGHT);
        let view = preprocessor.view(&uniform(64, 32, [200, 10, 30]), None).unwrap();
        let is_bar = |y: usize| view.data[y * 96..(y + 1) * 96].iter().all(|&v| v == GREY);
        let bars: Vec<usize> = (0..32).filter(|&y| is_bar(y)).collect();
        assert_eq!(bars, (0..8).chain(24..32).collect::<Vec<_>>());
        assert_eq!(view.data[8 * 96..24 * 96], [200, 10, 30].repeat(32 * 16));
        // A frame of another aspect afterwards leaves nothing of the first.
        let view = preprocessor.view(&uniform(16, 32, [1, 2, 3]), None).unwrap();
        assert_eq!(view.data[..96], [[GREY; 3].repeat(8), [1, 2, 3].repeat(16), [GREY; 3].repeat(8)].concat());
    }

    #[test]
    fn a_resize_smaller_than_the_crop_gets_bars() {
        let input = input(8, 8, Resize::ShorterSide(4), TensorFormat::F32Nchw);
        let view = Preprocessor::new(&input, Fit::Crop, UPRIGHT).view(&uniform(9, 9, [9, 9, 9]), None).unwrap();
        assert_eq!(view.data.iter().filter(|&&v| v == 9).count(), 4 * 4 * 3);
        assert_eq!(view.data.iter().filter(|&&v| v == GREY).count(), (64 - 16) * 3);
    }
}

mod tensors {
    use super::*;

    fn filled(format: TensorFormat, colour: [u8; 3]) -> InputTensor {
        let mut tensor = InputTensor::F32(vec![3.0]);
        let input = input(2, 1, Resize::Stretch, format);
        Preprocessor::new(&input, Fit::Crop, UPRIGHT).fill(&uniform(5, 5, colour), None, &mut tensor).unwrap();
        tensor
    }

    #[test]
    fn floats_are_planes_in_the_models_order() {
        let (b, g, r) = (30.0 - 103.939, 20.0 - 116.779, 10.0 - 123.68);
        assert_eq!(filled(TensorFormat::F32Nchw, [10, 20, 30]), InputTensor::F32(vec![b, b, g, g, r, r]));
    }

    #[test]
    fn codes_round_half_to_even_and_clamp() {
        let format = |scale, zero_point, channels| TensorFormat::U8Nhwc { scale, zero_point, channels };
        let check = |format, colour, codes: &[u8]| assert_eq!(filled(format, colour), InputTensor::U8(codes.repeat(2)));
        // -73.939 / 2 = -36.97, -96.779 / 2 = -48.39, -113.68 / 2 = -56.84
        check(format(2.0, 100, 3), [10, 20, 30], &[63, 52, 43]);
        check(format(2.0, 100, 4), [10, 20, 30], &[63, 52, 43, 100]);
        check(format(1.0, 100, 4), [0, 255, 255], &[251, 238, 0, 100]);
        check(format(0.5, 100, 3), [0, 0, 255], &[255, 0, 0]);
    }

    #[test]
    fn a_tie_goes_to_the_even_code() {
        let mut input = input(1, 1, Resize::Stretch, TensorFormat::U8Nhwc { scale: 2.0, zero_point: 0, channels: 3 });
        input.preprocess.mean = [0.0; 3];
        let mut tensor = InputTensor::U8(Vec::new());
        Preprocessor::new(&input, Fit::Crop, UPRIGHT).fill(&uniform(1, 1, [5, 7, 9]), None, &mut tensor).unwrap();
        assert_eq!(tensor, InputTensor::U8(vec![4, 4, 2]));
    }

    #[test]
    fn fill_is_view_looked_up() {
        let input = input(24, 24, Resize::ShorterSide(28), TensorFormat::F32Nchw);
        let mut preprocessor = Preprocessor::new(&input, Fit::Crop, UPRIGHT);
        let (rgb, mut tensor) = (chart(97, 61), InputTensor::U8(Vec::new()));
        preprocessor.fill(&rgb, None, &mut tensor).unwrap();
        let view = preprocessor.view(&rgb, None).unwrap();
        let red: Vec<f32> = view.data.chunks_exact(3).map(|p| f32::from(p[0]) - 123.68).collect();
        let InputTensor::F32(values) = tensor else { panic!("not floats") };
        assert_eq!(values[2 * 24 * 24..], red);
    }
}

/// What people are shown of a turned camera is what the model gets of it.
#[test]
fn the_oriented_frame_is_the_one_that_the_model_sees() {
    let frame = chart(5, 3);
    for rotate in [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
        for flip in [None, Some(Flip::Horizontal), Some(Flip::Vertical)] {
            let orientation = Orientation { rotate, flip };
            let turned = oriented(&frame, orientation);
            let spec = input(turned.width as usize, turned.height as usize, Resize::Stretch, TensorFormat::F32Nchw);
            let seen = Preprocessor::new(&spec, Fit::Stretch, orientation).view(&frame, None).unwrap();
            assert_eq!(turned, seen, "{orientation:?}");
        }
    }
    assert_eq!(oriented(&frame, Orientation { rotate: Rotation::Quarter, flip: None }).data[..3], [0, 2, 7]);
}

#[test]
fn the_order_of_frames_leaves_no_trace() {
    let input = input(24, 24, Resize::ShorterSide(28), TensorFormat::F32Nchw);
    let frames = [chart(97, 61), chart(31, 200), chart(24, 24), chart(1, 9), chart(97, 61)];
    let areas = [None, Some(Area::Fractions([0.0, 0.25, 1.0, 0.5]))];
    for fit in [Fit::Crop, Fit::Pad, Fit::Stretch] {
        let mut kept = Preprocessor::new(&input, fit, UPRIGHT);
        for (frame, area) in frames.iter().flat_map(|f| areas.iter().map(move |a| (f, a.as_ref()))) {
            let fresh = Preprocessor::new(&input, fit, UPRIGHT).view(frame, area);
            assert_eq!(kept.view(frame, area), fresh, "{fit:?} {}x{} {area:?}", frame.width, frame.height);
        }
    }
}

#[test]
fn a_frame_that_is_not_what_it_says_is_an_error() {
    let input = input(4, 4, Resize::ShorterSide(5), TensorFormat::F32Nchw);
    let mut preprocessor = Preprocessor::new(&input, Fit::Crop, UPRIGHT);
    for (width, height, bytes) in [(0, 0, 0), (2, 2, 11), (0, 5, 3), (u32::MAX, u32::MAX, 3)] {
        let rgb = Rgb { width, height, data: vec![0; bytes] };
        let error = preprocessor.view(&rgb, None).unwrap_err();
        assert_eq!(error, PreprocessError::EmptyFrame { width, height, bytes });
    }
}

//! The kernels allocate nothing once they have run: not the layers, not the pool.

use spotter::kernels::{Conv, ConvSpec, Dense, Kernel, Pool, Requantize, Scratch, Strategy};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn rule(outputs: usize) -> Requantize {
    Requantize { multiplier: vec![1e-4; outputs], zero_point: 3, min: 0, max: 255 }
}

/// A Winograd layer with kept and one with transformed weights, a direct, a depthwise and a dense one, in every kernel and number of threads.
#[test]
fn nothing_is_allocated_after_the_first_run() {
    let spec = |in_channels, out_channels, kernel: usize, groups, pool| ConvSpec {
        in_channels,
        out_channels,
        kernel: [kernel; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [kernel / 2; 4],
        groups,
        input_zero_point: 5,
        pool,
    };
    let specs = [
        spec(32, 32, 3, 1, true),
        spec(320, 320, 3, 1, false),
        spec(3, 40, 3, 1, true),
        spec(64, 32, 1, 1, false),
        spec(48, 48, 3, 48, false),
        spec(24, 24, 5, 3, false),
    ];
    let shape = [14, 14];
    for kernel in Kernel::available() {
        for strategy in Strategy::ALL {
            for threads in [1, 2] {
                let (pool, mut scratch) = (Pool::new(threads), Scratch::new());
                let convolutions: Vec<Conv> = specs
                    .iter()
                    .map(|spec| {
                        let count =
                            spec.out_channels * spec.kernel[0] * spec.kernel[1] * spec.in_channels / spec.groups;
                        let (weights, bias) = (vec![1; count], vec![0; spec.out_channels]);
                        let rule = rule(spec.out_channels);
                        Conv::with_strategy(kernel, strategy, spec.clone(), &weights, &bias, rule).unwrap()
                    })
                    .collect();
                let dense = Dense::new(kernel, 500, 70, &vec![1; 35_000], &[0; 70], 5, rule(70)).unwrap();
                let (input, mut output) = (vec![9; 196 * 320], vec![0; 196 * 320]);
                let mut all = |scratch: &mut Scratch| {
                    for conv in &convolutions {
                        let [height, width] = conv.output_shape(shape).unwrap();
                        let (from, to) = (196 * conv.spec().in_channels, height * width * conv.spec().out_channels);
                        conv.run(&pool, &input[..from], shape, &mut output[..to], scratch);
                    }
                    dense.run(&pool, &input[..500], &mut output[..70], scratch);
                };
                // Twice: with two threads, a worker may sleep through the first.
                all(&mut scratch);
                all(&mut scratch);
                let before = ALLOCATIONS.load(SeqCst);
                all(&mut scratch);
                assert_eq!(ALLOCATIONS.load(SeqCst) - before, 0, "{kernel}, {strategy:?}, {threads} threads");
            }
        }
    }
}

//! Host tensors: element types, owned arrays and borrowed views.
//!
//! A view borrows the caller's memory; dense aligned views reach the CPU kernels without a copy. Strided or misaligned views (a slice of
//! a file, a transposed array) are legal and are packed on entry. Knows nothing about kernels.

use crate::error::RuntimeError;
pub use attnc_compiler::kernel::ir::Storage;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A Rust type that is the storage of one element.
pub trait Element: bytemuck::Pod + Send + Sync {
    const STORAGE: Storage;
    /// The value as a real; ints beyond 2^53 round to nearest.
    fn to_f64(self) -> f64;
    /// The nearest value of this type; ints truncate towards zero and saturate, NaN becomes 0.
    fn from_f64(x: f64) -> Self;
    /// The value as an int; reals truncate towards zero and saturate.
    fn to_i64(self) -> i64;
    /// The value of an int in this type, `None` when it does not fit (reals round instead).
    fn from_i64(x: i64) -> Option<Self>;
}

macro_rules! real_element {
    ($ty:ty, $storage:ident, $to:expr, $from:expr) => {
        impl Element for $ty {
            const STORAGE: Storage = Storage::$storage;
            fn to_f64(self) -> f64 {
                $to(self)
            }
            fn from_f64(x: f64) -> Self {
                $from(x)
            }
            fn to_i64(self) -> i64 {
                self.to_f64() as i64
            }
            fn from_i64(x: i64) -> Option<Self> {
                Some($from(x as f64))
            }
        }
    };
}

macro_rules! int_element {
    ($ty:ty, $storage:ident) => {
        impl Element for $ty {
            const STORAGE: Storage = Storage::$storage;
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn from_f64(x: f64) -> Self {
                x as $ty
            }
            fn to_i64(self) -> i64 {
                self as i64
            }
            fn from_i64(x: i64) -> Option<Self> {
                <$ty>::try_from(x).ok()
            }
        }
    };
}

real_element!(f32, F32, f64::from, |x: f64| x as f32);
real_element!(f64, F64, |x: f64| x, |x: f64| x);
real_element!(bf16, Bf16, bf16::to_f64, bf16::from_f64);
real_element!(f16, F16, f16::to_f64, f16::from_f64);
int_element!(i64, I64);
int_element!(i32, I32);
int_element!(u8, U8);

/// Runs `$body` with `$T` bound to the Rust type of a storage.
macro_rules! with_storage {
    ($storage:expr, $T:ident => $body:expr) => {
        match $storage {
            Storage::F32 => { type $T = f32; $body }
            Storage::F64 => { type $T = f64; $body }
            Storage::Bf16 => { type $T = bf16; $body }
            Storage::F16 => { type $T = f16; $body }
            Storage::I64 => { type $T = i64; $body }
            Storage::I32 => { type $T = i32; $body }
            Storage::U8 => { type $T = u8; $body }
        }
    };
}

/// Name of a storage as files and messages spell it.
pub fn storage_name(storage: Storage) -> &'static str {
    match storage {
        Storage::F32 => "f32",
        Storage::F64 => "f64",
        Storage::Bf16 => "bf16",
        Storage::F16 => "f16",
        Storage::I64 => "i64",
        Storage::I32 => "i32",
        Storage::U8 => "u8",
    }
}

/// Whether elements of this storage are reals.
pub fn is_real(storage: Storage) -> bool {
    match storage {
        Storage::F32 | Storage::F64 | Storage::Bf16 | Storage::F16 => true,
        Storage::I64 | Storage::I32 | Storage::U8 => false,
    }
}

/// Number of elements of a shape, `None` when it overflows.
pub fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= isize::MAX as usize / 8)
}

#[derive(Clone, Debug, PartialEq)]
enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

macro_rules! with_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::Bf16($v) => $body,
            Data::F16($v) => $body,
            Data::I64($v) => $body,
            Data::I32($v) => $body,
            Data::U8($v) => $body,
        }
    };
}

/// An owned dense row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// Takes `data`, which must have as many elements as `shape` says.
    ///
    /// ```
    /// use attnc_runtime::Tensor;
    /// let x = Tensor::new(vec![1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(x.view().shape(), [2, 2]);
    /// # Ok::<(), attnc_runtime::RuntimeError>(())
    /// ```
    pub fn new<T: Element>(data: Vec<T>, shape: &[usize]) -> Result<Tensor, RuntimeError> {
        if elements(shape) != Some(data.len()) {
            return Err(RuntimeError::ViewShape { shape: shape.to_vec(), elements: data.len() });
        }
        let shape = shape.to_vec();
        let storage = T::STORAGE;
        // The cast keeps the allocation: source and target are the same type.
        let data = with_storage!(storage, U => U::wrap(bytemuck::allocation::cast_vec(data)));
        Ok(Tensor { shape, data })
    }

    /// An array of zeros, or [`RuntimeError::TooLarge`] when the allocator refuses.
    pub fn zeros(storage: Storage, shape: &[usize]) -> Result<Tensor, RuntimeError> {
        let too_large = || RuntimeError::TooLarge { what: format!("an array of shape {shape:?}"), bytes: None, available: None };
        let n = elements(shape).ok_or_else(too_large)?;
        let data = with_storage!(storage, T => {
            let mut v: Vec<T> = Vec::new();
            v.try_reserve_exact(n).map_err(|_| too_large())?;
            v.resize(n, <T as bytemuck::Zeroable>::zeroed());
            T::wrap(v)
        });
        Ok(Tensor { shape: shape.to_vec(), data })
    }

    /// Reals or ints given as f64, rounded to `storage`.
    pub fn from_f64(storage: Storage, shape: &[usize], data: &[f64]) -> Result<Tensor, RuntimeError> {
        if elements(shape) != Some(data.len()) {
            return Err(RuntimeError::ViewShape { shape: shape.to_vec(), elements: data.len() });
        }
        let data = with_storage!(storage, T => T::wrap(data.iter().map(|x| T::from_f64(*x)).collect()));
        Ok(Tensor { shape: shape.to_vec(), data })
    }

    pub fn storage(&self) -> Storage {
        match &self.data {
            Data::F32(_) => Storage::F32,
            Data::F64(_) => Storage::F64,
            Data::Bf16(_) => Storage::Bf16,
            Data::F16(_) => Storage::F16,
            Data::I64(_) => Storage::I64,
            Data::I32(_) => Storage::I32,
            Data::U8(_) => Storage::U8,
        }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as bytes, native order.
    pub fn bytes(&self) -> &[u8] {
        with_data!(&self.data, v => bytemuck::cast_slice(v))
    }

    /// The elements as `T`, `None` when the storage is another.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        (T::STORAGE == self.storage()).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// A view of the whole array.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { storage: self.storage(), shape: self.shape.clone(), strides: None, bytes: self.bytes() }
    }

    /// A view that may be written.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        TensorViewMut { storage: self.storage(), shape: self.shape.clone(), bytes: with_data!(&mut self.data, v => bytemuck::cast_slice_mut(v)) }
    }
}

/// Puts a vector into the variant of its type.
trait Wrap: Sized {
    fn wrap(data: Vec<Self>) -> Data;
}

macro_rules! wrap {
    ($($ty:ty => $variant:ident),*) => { $( impl Wrap for $ty { fn wrap(data: Vec<Self>) -> Data { Data::$variant(data) } } )* };
}
wrap!(f32 => F32, f64 => F64, bf16 => Bf16, f16 => F16, i64 => I64, i32 => I32, u8 => U8);

/// A borrowed array, read only.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    storage: Storage,
    shape: Vec<usize>,
    /// In elements; `None` for dense row-major.
    strides: Option<Vec<usize>>,
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Dense row-major elements.
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<TensorView<'a>, RuntimeError> {
        TensorView::from_bytes(T::STORAGE, shape, bytemuck::cast_slice(data))
    }

    /// Dense row-major elements in native byte order, of any alignment.
    pub fn from_bytes(storage: Storage, shape: &[usize], bytes: &'a [u8]) -> Result<TensorView<'a>, RuntimeError> {
        if elements(shape).and_then(|n| n.checked_mul(storage.bytes())) != Some(bytes.len()) {
            return Err(RuntimeError::ViewShape { shape: shape.to_vec(), elements: bytes.len() / storage.bytes() });
        }
        Ok(TensorView { storage, shape: shape.to_vec(), strides: None, bytes })
    }

    /// Elements `sum of index[i] * strides[i]` of `data`; strides count elements and may be 0 (a broadcast axis).
    pub fn strided<T: Element>(data: &'a [T], shape: &[usize], strides: &[usize]) -> Result<TensorView<'a>, RuntimeError> {
        let wrong = || RuntimeError::ViewShape { shape: shape.to_vec(), elements: data.len() };
        if shape.len() != strides.len() || elements(shape).is_none() {
            return Err(wrong());
        }
        if !shape.contains(&0) {
            let last = shape.iter().zip(strides).try_fold(0usize, |at, (n, s)| at.checked_add((n - 1).checked_mul(*s)?)).ok_or_else(wrong)?;
            if last >= data.len() {
                return Err(wrong());
            }
        }
        let view = TensorView { storage: T::STORAGE, shape: shape.to_vec(), strides: Some(strides.to_vec()), bytes: bytemuck::cast_slice(data) };
        Ok(if dense(shape, strides) {
            let n = shape.iter().product::<usize>() * view.storage.bytes();
            TensorView { strides: None, bytes: &view.bytes[..n], ..view }
        } else {
            view
        })
    }

    pub fn storage(&self) -> Storage {
        self.storage
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes when they are dense and aligned for their type: what a kernel may read in place.
    pub fn direct(&self) -> Option<&'a [u8]> {
        let aligned = (self.bytes.as_ptr() as usize).is_multiple_of(self.storage.bytes());
        (self.strides.is_none() && aligned).then_some(self.bytes)
    }

    /// A dense owned copy in another storage.
    ///
    /// Reals round to nearest; an int that does not fit is [`RuntimeError::OutOfRange`] (index, value). Ints to reals and back are not
    /// converted here silently: the caller has matched dtypes before.
    pub fn convert(&self, to: Storage) -> Result<Tensor, RuntimeError> {
        if let Some(data) = self.direct().and_then(|bytes| bulk(self.storage, to, bytes)) {
            return data.map(|data| Tensor { shape: self.shape.clone(), data }).ok_or_else(|| self.no_room());
        }
        let order = self.order();
        let data = with_storage!(self.storage, S => with_storage!(to, T => {
            let mut out: Vec<T> = Vec::new();
            out.try_reserve_exact(self.len()).map_err(|_| self.no_room())?;
            let keep_int = !is_real(self.storage) && !is_real(to);
            for at in order {
                let x: S = bytemuck::pod_read_unaligned(&self.bytes[at * size_of::<S>()..(at + 1) * size_of::<S>()]);
                out.push(if keep_int {
                    <T as Element>::from_i64(x.to_i64()).ok_or(RuntimeError::OutOfRange { index: out.len(), value: x.to_i64(), storage: to })?
                } else {
                    <T as Element>::from_f64(x.to_f64())
                });
            }
            T::wrap(out)
        }));
        Ok(Tensor { shape: self.shape.clone(), data })
    }

    fn no_room(&self) -> RuntimeError {
        RuntimeError::TooLarge { what: format!("a copy of shape {:?}", self.shape), bytes: None, available: None }
    }

    /// Elements as f64 in row-major order.
    pub fn to_f64(&self) -> Vec<f64> {
        with_storage!(self.storage, S => self.order().map(|at| {
            let x: S = bytemuck::pod_read_unaligned(&self.bytes[at * size_of::<S>()..(at + 1) * size_of::<S>()]);
            Element::to_f64(x)
        }).collect())
    }

    /// Elements as i64 in row-major order; reals truncate.
    pub fn to_i64(&self) -> Vec<i64> {
        with_storage!(self.storage, S => self.order().map(|at| {
            let x: S = bytemuck::pod_read_unaligned(&self.bytes[at * size_of::<S>()..(at + 1) * size_of::<S>()]);
            Element::to_i64(x)
        }).collect())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether some extent is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of the elements in memory, in row-major order.
    fn order(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        let Some(strides) = &self.strides else { return Box::new(0..self.len()) };
        let mut index = vec![0usize; self.shape.len()];
        let mut left = self.len();
        Box::new(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let at = index.iter().zip(strides).map(|(i, s)| i * s).sum();
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
            Some(at)
        }))
    }
}

/// The conversions that calls make, on whole arrays: copies, and f32 from and to the 16-bit reals. `None` for the others, `Some(None)`
/// when there is no memory.
fn bulk(from: Storage, to: Storage, bytes: &[u8]) -> Option<Option<Data>> {
    fn room<T: Element>(n: usize) -> Option<Vec<T>> {
        let mut out = Vec::new();
        out.try_reserve_exact(n).ok()?;
        out.resize(n, T::zeroed());
        Some(out)
    }
    match (from, to) {
        _ if from == to => Some(with_storage!(from, T => {
            let source: &[T] = bytemuck::cast_slice(bytes);
            room(source.len()).map(|mut out: Vec<T>| {
                out.copy_from_slice(source);
                T::wrap(out)
            })
        })),
        (Storage::Bf16, Storage::F32) => widen::<bf16>(bytes, room(bytes.len() / 2)),
        (Storage::F16, Storage::F32) => widen::<f16>(bytes, room(bytes.len() / 2)),
        (Storage::F32, Storage::Bf16) => narrow::<bf16>(bytes, room(bytes.len() / 4)),
        (Storage::F32, Storage::F16) => narrow::<f16>(bytes, room(bytes.len() / 4)),
        _ => None,
    }
}

fn widen<T: Element>(bytes: &[u8], out: Option<Vec<f32>>) -> Option<Option<Data>>
where
    [T]: HalfFloatSliceExt,
{
    Some(out.map(|mut out| {
        bytemuck::cast_slice::<u8, T>(bytes).convert_to_f32_slice(&mut out);
        Data::F32(out)
    }))
}

fn narrow<T: Element + Wrap>(bytes: &[u8], out: Option<Vec<T>>) -> Option<Option<Data>>
where
    [T]: HalfFloatSliceExt,
{
    Some(out.map(|mut out| {
        out.convert_from_f32_slice(bytemuck::cast_slice(bytes));
        T::wrap(out)
    }))
}

/// Whether the strides are those of a dense row-major array; strides of axes of length 1 do not matter.
fn dense(shape: &[usize], strides: &[usize]) -> bool {
    let mut want = 1;
    for (n, s) in shape.iter().zip(strides).rev() {
        if *n != 1 && *s != want {
            return shape.contains(&0);
        }
        want *= n;
    }
    true
}

/// A borrowed dense array that a call fills.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    storage: Storage,
    shape: Vec<usize>,
    bytes: &'a mut [u8],
}

impl<'a> TensorViewMut<'a> {
    /// Dense row-major elements.
    pub fn new<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<TensorViewMut<'a>, RuntimeError> {
        if elements(shape) != Some(data.len()) {
            return Err(RuntimeError::ViewShape { shape: shape.to_vec(), elements: data.len() });
        }
        Ok(TensorViewMut { storage: T::STORAGE, shape: shape.to_vec(), bytes: bytemuck::cast_slice_mut(data) })
    }

    pub fn storage(&self) -> Storage {
        self.storage
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same memory, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> TensorViewMut<'_> {
        TensorViewMut { storage: self.storage, shape: self.shape.clone(), bytes: self.bytes }
    }

    /// The elements as bytes, for as long as the memory is borrowed.
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }

    /// The elements as bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Fills it from an array of the same shape, converting the storage.
    pub fn copy_from(&mut self, from: &TensorView<'_>) -> Result<(), RuntimeError> {
        if from.shape() != self.shape {
            return Err(RuntimeError::ViewShape { shape: self.shape.clone(), elements: from.len() });
        }
        let converted;
        let bytes = match from.direct() {
            Some(bytes) if from.storage() == self.storage => bytes,
            _ => {
                converted = from.convert(self.storage)?;
                converted.bytes()
            }
        };
        self.bytes.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_views_pack_in_row_major_order() {
        let data = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0];
        let transposed = TensorView::strided(&data, &[3, 2], &[1, 3]).unwrap();
        assert!(transposed.direct().is_none());
        assert_eq!(transposed.to_f64(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(TensorView::strided(&data, &[3, 3], &[3, 1]).is_err());
        assert!(TensorView::strided(&data, &[2, 3], &[3, 1]).unwrap().direct().is_some());
    }

    #[test]
    fn conversions_round_to_nearest_and_refuse_ints_that_do_not_fit() {
        let x = Tensor::new(vec![1.0 + f64::EPSILON, 65520.0, f64::NAN], &[3]).unwrap();
        let y = x.view().convert(Storage::F16).unwrap();
        let y = y.view().to_f64();
        assert_eq!(y[..2], [1.0, f64::INFINITY]);
        assert!(y[2].is_nan());
        let big = Tensor::new(vec![1i64, 1 << 40], &[2]).unwrap();
        assert!(matches!(big.view().convert(Storage::I32), Err(RuntimeError::OutOfRange { index: 1, .. })));
        assert_eq!(Tensor::new(vec![(1i64 << 60) + 1], &[1]).unwrap().view().convert(Storage::I64).unwrap().as_slice::<i64>(), Some(&[(1i64 << 60) + 1][..]));
    }

    #[test]
    fn whole_arrays_convert_like_single_elements() {
        let reals: Vec<f32> = (0..4000).map(|i| f32::from_bits((i as u32).wrapping_mul(2_654_435_761))).filter(|x| !x.is_nan()).collect();
        let all = Tensor::new(reals.clone(), &[reals.len()]).unwrap();
        for storage in [Storage::Bf16, Storage::F16] {
            let narrow = all.view().convert(storage).unwrap();
            let one_by_one = Tensor::from_f64(storage, &[reals.len()], &all.view().to_f64()).unwrap();
            assert_eq!(narrow.bytes(), one_by_one.bytes(), "{storage:?}");
            assert_eq!(narrow.view().convert(Storage::F32).unwrap().view().to_f64(), narrow.view().to_f64());
        }
        assert_eq!(all.view().convert(Storage::F32).unwrap(), all);
    }

    #[test]
    fn misaligned_bytes_are_readable_but_not_direct() {
        let raw: Vec<u8> = [0u8].into_iter().chain(2.5f32.to_ne_bytes()).chain([0; 4]).collect();
        let offset = usize::from((raw.as_ptr() as usize).is_multiple_of(4));
        let view = TensorView::from_bytes(Storage::F32, &[1], &raw[offset..offset + 4]).unwrap();
        assert!(view.direct().is_none());
        if offset == 1 {
            assert_eq!(view.to_f64(), [2.5]);
        }
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        assert!(Tensor::zeros(Storage::U8, &[usize::MAX, 2]).is_err());
        assert!(Tensor::zeros(Storage::F32, &[usize::MAX, 0]).is_ok());
        assert!(Tensor::new(vec![0f32; 3], &[2, 2]).is_err());
    }
}

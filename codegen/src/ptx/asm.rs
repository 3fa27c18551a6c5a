//! Instructions of warp groups, tensor copies and barriers in block memory. Recipes: PTX ISA 8.6, sections on `wgmma`, `mbarrier` and
//! `cp.async.bulk.tensor`. All of them have side effects and are convergent for LLVM; registers that a product is still writing or reading
//! are tied through the statements that order them, since nothing else tells LLVM.

use super::lane::{Value, Writer};
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::types::{BasicMetadataTypeEnum, BasicType, BasicTypeEnum};
use inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, CallSiteValue, IntValue, PointerValue};
use inkwell::AddressSpace;

type Arg<'c> = BasicMetadataValueEnum<'c>;

/// How a product reads an operand in block memory: 128-byte swizzle, bytes between groups of 8 rows (`SBO`) and between panels (`LBO`).
const SBO: u64 = 1024;

impl<'c> Writer<'c, '_> {
    pub fn word(&self, x: u64) -> IntValue<'c> {
        self.int.const_int(x, false)
    }

    fn call(&mut self, name: &str, args: &[Arg<'c>]) {
        self.intrinsic(name, &[], args);
    }

    /// A shared pointer from an address of 32 bits.
    fn shared(&mut self, address: IntValue<'c>) -> PointerValue<'c> {
        let ty = self.context.ptr_type(AddressSpace::from(3u16));
        let made = self.builder.build_int_to_ptr(address, ty, "");
        self.done(made, ty.get_undef())
    }

    pub fn plus(&mut self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        let made = self.builder.build_int_add(a, b, "");
        self.done(made, a)
    }

    pub fn times(&mut self, a: IntValue<'c>, b: u64) -> IntValue<'c> {
        let made = self.builder.build_int_mul(a, a.get_type().const_int(b, false), "");
        self.done(made, a)
    }

    /// Inline assembly with results of these types; operands follow the ties.
    fn assembly(&mut self, text: &str, results: &[BasicTypeEnum<'c>], constraints: String, args: &[Arg<'c>]) -> Vec<BasicValueEnum<'c>> {
        let params: Vec<BasicMetadataTypeEnum<'c>> = args
            .iter()
            .map(|a| match a {
                BasicMetadataValueEnum::FloatValue(v) => v.get_type().into(),
                BasicMetadataValueEnum::PointerValue(v) => v.get_type().into(),
                BasicMetadataValueEnum::IntValue(v) => v.get_type().into(),
                _ => self.int.into(),
            })
            .collect();
        let ty = match results {
            [] => self.context.void_type().fn_type(&params, false),
            [one] => one.fn_type(&params, false),
            many => self.context.struct_type(many, false).fn_type(&params, false),
        };
        let asm = self.context.create_inline_asm(ty, text.to_string(), constraints, true, false, None, false);
        let call = match self.builder.build_indirect_call(ty, asm, args, "") {
            Ok(call) => call,
            Err(e) => {
                self.refuse(e.to_string());
                return results.iter().map(|t| t.const_zero()).collect();
            }
        };
        self.convergent(&call);
        let Some(value) = call.try_as_basic_value().basic() else { return vec![] };
        if results.len() == 1 {
            return vec![value];
        }
        let BasicValueEnum::StructValue(value) = value else { return vec![] };
        (0..results.len() as u32)
            .map(|i| {
                let made = self.builder.build_extract_value(value, i, "");
                let other = results[i as usize].const_zero();
                self.done(made, other)
            })
            .collect()
    }

    fn convergent(&self, call: &CallSiteValue<'c>) {
        for name in ["convergent", "nounwind"] {
            call.add_attribute(AttributeLoc::Function, self.context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), 0));
        }
    }

    /// A statement that every one of these registers passes through.
    pub fn tied(&mut self, text: &str, values: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let mut constraints: Vec<String> = values.iter().map(|v| if v.is_float_value() { "=f".to_string() } else { "=r".to_string() }).collect();
        constraints.extend((0..values.len()).map(|i| i.to_string()));
        constraints.push("~{memory}".to_string());
        let types: Vec<BasicTypeEnum<'c>> = values.iter().map(|v| v.get_type()).collect();
        let args: Vec<Arg<'c>> = values.iter().map(|v| (*v).into()).collect();
        self.assembly(text, &types, constraints.join(","), &args)
    }

    /// A copy that stays where it is.
    pub fn tied_move(&mut self, x: IntValue<'c>) -> IntValue<'c> {
        match self.assembly("mov.b32 $0, $1;", &[self.int.into()], "=r,r".to_string(), &[x.into()]).first() {
            Some(BasicValueEnum::IntValue(v)) => *v,
            _ => x,
        }
    }

    /// Descriptor of an operand at `address` with `lbo` bytes between panels.
    pub fn descriptor(&mut self, address: IntValue<'c>, lbo: u64) -> IntValue<'c> {
        let long = self.context.i64_type();
        let made = self.builder.build_and(address, self.word(0x3FFFF), "");
        let low = self.done(made, address);
        let made = self.builder.build_right_shift(low, self.word(4), false, "");
        let low = self.done(made, low);
        let made = self.builder.build_int_z_extend(low, long, "");
        let low = self.done(made, long.get_undef());
        let high = (1 << 62) | ((SBO >> 4) << 32) | ((lbo >> 4) << 16);
        let made = self.builder.build_or(low, long.const_int(high, false), "");
        self.done(made, low)
    }

    /// One step of 16 reduced positions: `acc (64 x 2 len) = or += a * b`. `a`: a descriptor, or four registers.
    pub fn product(&mut self, half: &str, acc: &[Value<'c>], fresh: bool, a: &[Value<'c>], b: IntValue<'c>, turned: bool) -> Vec<Value<'c>> {
        let r = acc.len();
        let n = 2 * r;
        let list = |from: usize, n: usize| (from..from + n).map(|i| format!("${i}")).collect::<Vec<_>>().join(",");
        let first = if fresh { r } else { 2 * r };
        let (left, tail) = if a.len() == 1 { (format!("${first}"), format!("p, 1, 1, 0, {}", u8::from(turned))) } else { (format!("{{{}}}", list(first, 4)), format!("p, 1, 1, {}", u8::from(turned))) };
        let right = first + a.len();
        let text = format!(
            "{{ .reg .pred p; setp.ne.b32 p, {}, 0; wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{half}.{half} {{{}}}, {left}, ${right}, {tail}; }}",
            u8::from(!fresh),
            list(0, r)
        );
        let mut constraints = vec!["=f".to_string(); r];
        let mut args: Vec<Arg<'c>> = vec![];
        if !fresh {
            constraints.extend((0..r).map(|i| i.to_string()));
            args.extend(acc.iter().map(|v| Arg::from(*v)));
        }
        constraints.extend(a.iter().map(|_| if a.len() == 1 { "l".to_string() } else { "r".to_string() }));
        args.extend(a.iter().map(|v| Arg::from(*v)));
        constraints.push("l".to_string());
        args.push(b.into());
        self.assembly(&text, &vec![self.real.into(); r], constraints.join(","), &args)
    }

    pub fn commit(&mut self) {
        self.call("llvm.nvvm.wgmma.commit_group.sync.aligned", &[]);
    }

    /// Two reals as a pair of 16 bits, `low` in the lower half.
    pub fn pair(&mut self, half: &str, low: Value<'c>, high: Value<'c>) -> Value<'c> {
        let name = if half == "bf16" { "llvm.nvvm.ff2bf16x2.rn" } else { "llvm.nvvm.ff2f16x2.rn" };
        let undefined = self.int.get_undef().into();
        let Some(made) = self.intrinsic(name, &[], &[high.into(), low.into()]) else { return undefined };
        let made = self.builder.build_bit_cast(made, self.int, "");
        self.done(made, undefined)
    }

    pub fn butterfly(&mut self, x: Value<'c>, distance: u64) -> Value<'c> {
        let args = [self.word(u64::from(u32::MAX)).into(), x.into(), self.word(distance).into(), self.word(31).into()];
        self.intrinsic("llvm.nvvm.shfl.sync.bfly.f32", &[], &args).unwrap_or(x)
    }

    /// Tells the assembler that a value is the same in the whole warp.
    pub fn same(&mut self, x: IntValue<'c>) -> IntValue<'c> {
        let args = [self.word(u64::from(u32::MAX)).into(), x.into(), self.word(0).into(), self.word(31).into()];
        match self.intrinsic("llvm.nvvm.shfl.sync.idx.i32", &[], &args) {
            Some(BasicValueEnum::IntValue(v)) => v,
            _ => x,
        }
    }

    pub fn barrier_init(&mut self, at: IntValue<'c>, count: u64) {
        let at = self.shared(at);
        let count = self.word(count);
        self.call("llvm.nvvm.mbarrier.init.shared", &[at.into(), count.into()]);
    }

    pub fn barriers_ready(&mut self) {
        self.call("llvm.nvvm.fence.mbarrier_init.release.cluster", &[]);
    }

    pub fn block_barrier(&mut self) {
        let which = self.int.const_zero();
        self.call("llvm.nvvm.barrier.cta.sync.aligned.all", &[which.into()]);
    }

    /// A named barrier of two groups: one waits, the other one arrives.
    pub fn pair_barrier(&mut self, wait: bool, id: IntValue<'c>) {
        let name = if wait { "llvm.nvvm.barrier.cta.sync.aligned.count" } else { "llvm.nvvm.barrier.cta.arrive.aligned.count" };
        let count = self.word(256);
        self.call(name, &[id.into(), count.into()]);
    }

    pub fn expect(&mut self, at: IntValue<'c>, bytes: u64) {
        let at = self.shared(at);
        let bytes = self.word(bytes);
        self.call("llvm.nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta", &[at.into(), bytes.into()]);
    }

    pub fn arrive(&mut self, at: IntValue<'c>) {
        let at = self.shared(at);
        self.call("llvm.nvvm.mbarrier.arrive.shared", &[at.into()]);
    }

    /// Whether the phase of this parity is over; waits a while.
    pub fn try_wait(&mut self, at: IntValue<'c>, parity: IntValue<'c>) -> Value<'c> {
        let at = self.shared(at);
        let undefined = self.truth.get_undef().into();
        self.intrinsic("llvm.nvvm.mbarrier.try.wait.parity.scope.cta.space.cta", &[], &[at.into(), parity.into()]).unwrap_or(undefined)
    }

    /// One box to `to`, counted by the barrier `at`; positions innermost first.
    pub fn tensor_copy(&mut self, to: IntValue<'c>, at: IntValue<'c>, map: PointerValue<'c>, position: &[IntValue<'c>]) {
        let (to, at) = (self.shared(to), self.shared(at));
        let mut args: Vec<Arg<'c>> = vec![to.into(), at.into(), map.into()];
        args.extend(position.iter().map(|p| Arg::from(*p)));
        args.push(self.context.i64_type().const_zero().into());
        args.push(self.truth.const_zero().into());
        self.call(&format!("llvm.nvvm.cp.async.bulk.tensor.g2s.cta.tile.{}d", position.len()), &args);
    }

    pub fn prefetch_map(&mut self, map: PointerValue<'c>) {
        let ty = map.get_type().into();
        self.intrinsic("llvm.nvvm.prefetch.tensormap", &[ty], &[map.into()]);
    }

    pub fn set_registers(&mut self, more: bool, count: u32) {
        let name = format!("llvm.nvvm.setmaxnreg.{}.sync.aligned.u32", if more { "inc" } else { "dec" });
        let count = self.word(u64::from(count));
        self.call(&name, &[count.into()]);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the VM with small payloads on /dev/kvm: how it ends, unknown
 * accesses, configuration space, interrupts by MSI and by eventfd, the control
 * socket's answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/control.h"
#include "hypervisor/irq.h"
#include "hypervisor/vm.h"

#define LOAD_AT 0x1000000
#define RESULT 0x1100000 /* payloads leave words here */

/* 32-bit code that runs at LOAD_AT, name##_start to name##_end. */
#define PAYLOAD(name, text)                                                              \
	__asm__(".pushsection .rodata\n.code32\n" #name "_start:\n" text "\n" #name      \
		"_end:\n.code64\n.popsection\n");                                        \
	extern const char name##_start[], name##_end[]

#define POWER_OFF "mov $0x600, %dx\n mov $0x34, %al\n outb %al, %dx\n 1: hlt\n jmp 1b\n"

PAYLOAD(power_off, POWER_OFF);
PAYLOAD(reset_port, "mov $0xcf9, %dx\n mov $6, %al\n outb %al, %dx\n 1: hlt\n jmp 1b\n");
PAYLOAD(reset_i8042, "mov $0xfe, %al\n outb %al, $0x64\n 1: hlt\n jmp 1b\n");
PAYLOAD(reset_warm,
	"movw $0x1234, 0x472\n mov $0xcf9, %dx\n mov $6, %al\n outb %al, %dx\n"
	"1: hlt\n jmp 1b\n");
PAYLOAD(pv_panic, "mov $0x505, %dx\n inb %dx, %al\n mov $1, %al\n outb %al, %dx\n"
		  "1: hlt\n jmp 1b\n");
PAYLOAD(triple_fault, "ud2\n");
PAYLOAD(spin, "1: jmp 1b\n");
PAYLOAD(unknown,
	"mov $0x1234, %dx\n inb %dx, %al\n movzx %al, %eax\n mov %eax, 0x1100000\n"
	"inw %dx, %ax\n outl %eax, %dx\n mov $0xcf8, %dx\n inl %dx, %eax\n"
	"mov %eax, 0x1100004\n mov 0xd0000000, %eax\n mov %eax, 0x1100008\n"
	"movl $1, 0xd0000004\n movb $1, 0xe7ffffff\n mov $0x504, %dx\n inw %dx, %ax\n"
	"mov $0x600, %dx\n inl %dx, %eax\n mov %eax, 0x110000c\n" POWER_OFF);
PAYLOAD(config, "mov 0xe80f8000, %eax\n mov %eax, 0x1100000\n movl $0, 0xe80f8000\n"
		"mov 0xe80f8000, %eax\n mov %eax, 0x1100004\n movw $0, 0xe8000004\n"
		"movb $0, 0xe80fffff\n" POWER_OFF);
/* Software-enables the LAPIC, waits for vector 0x40, counts it, twice. */
PAYLOAD(interrupt,
	"mov $0x8000, %esp\n lidt 0x1000000 + idtr - interrupt_start\n"
	"movl $0x1ff, 0xfee000f0\n movl $1, 0x1100004\n sti\n"
	"2: cmpl $2, 0x1100000\n jae 3f\n hlt\n jmp 2b\n 3: " POWER_OFF
	"handler: incl 0x1100000\n movl $0, 0xfee000b0\n mov $0x8000, %esp\n"
	"sti\n jmp 2b\n" /* no iret: KVM's emulator has none */
	".balign 8\n idtr: .word 0x20f\n .long 0x9000\n"
	".globl handler_offset\n handler_offset: .long handler - interrupt_start\n");
extern const char handler_offset[];

static bool have_kvm(void)
{
	const char *must = getenv("FAVO_MUST_RUN");

	if (access("/dev/kvm", R_OK | W_OK) == 0)
		return true;
	if (must && strstr(must, "kvm"))
		fail_msg("no /dev/kvm");
	print_message("skipped: no /dev/kvm\n");
	return false;
}

static int kernel_of(const char *start, const char *end)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph[2];
		uint32_t note[5];
		uint8_t code[512];
	} e = {
		.eh =
			{
				.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
					    EV_CURRENT},
				.e_machine = EM_X86_64,
				.e_phoff = sizeof(Elf64_Ehdr),
				.e_phentsize = sizeof(Elf64_Phdr),
				.e_phnum = 2,
			},
		.note = {4, 4, 18, 0x006e6558, LOAD_AT},
	};
	int fd = memfd_create("payload", MFD_CLOEXEC);

	e.ph[0] = (Elf64_Phdr){.p_type = PT_LOAD,
			       .p_offset = (uint64_t)((char *)e.code - (char *)&e),
			       .p_paddr = LOAD_AT,
			       .p_filesz = sizeof(e.code),
			       .p_memsz = sizeof(e.code)};
	e.ph[1] = (Elf64_Phdr){.p_type = PT_NOTE,
			       .p_offset = (uint64_t)((char *)e.note - (char *)&e),
			       .p_filesz = sizeof(e.note)};
	assert_true((size_t)(end - start) <= sizeof(e.code));
	memcpy(e.code, start, (size_t)(end - start));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, &e, sizeof(e)), (ssize_t)sizeof(e));
	return fd;
}

static struct favo_vm *load(const char *start, const char *end)
{
	const struct favo_vm_opts opts = {
		.kvm_fd = -1,
		.ncpus = 1,
		.mem = {.size = 32 << 20, .huge = FAVO_HUGE_OFF},
		.serial_fd = -1,
	};
	struct favo_vm_kernel k = {.cmdline = "x"};
	struct favo_vm *vm = NULL;
	struct favo_err err = {0};

	k.kernel_fd = kernel_of(start, end);
	if (favo_vm_new(&vm, &opts, &err) < 0 || favo_vm_load(vm, &k, &err) < 0)
		fail_msg("%s", err.msg);
	close(k.kernel_fd);
	return vm;
}

static uint32_t word(struct favo_vm *vm, unsigned i)
{
	uint32_t v;

	assert_int_equal(favo_guest_read(vm->mem, RESULT + 4 * i, &v, 4), 0);
	return v;
}

static void run(struct favo_vm *vm, enum favo_end end)
{
	struct favo_err err = {0};

	if (favo_vm_run(vm, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	if (vm->end != end)
		fail_msg("ended as %s (%s), not %s", favo_end_name(vm->end),
			 vm->end_detail, favo_end_name(end));
}

static void endings(void **state)
{
	static const struct {
		const char *start, *end;
		enum favo_end how;
	} rows[] = {
		{power_off_start, power_off_end, FAVO_END_SHUTDOWN},
		{reset_port_start, reset_port_end, FAVO_END_RESET},
		{reset_i8042_start, reset_i8042_end, FAVO_END_RESET},
		{reset_warm_start, reset_warm_end, FAVO_END_PANIC},
		{pv_panic_start, pv_panic_end, FAVO_END_PANIC},
		{triple_fault_start, triple_fault_end, FAVO_END_PANIC},
	};
	unsigned i;

	(void)state;
	if (!have_kvm())
		skip();
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct favo_vm *vm = load(rows[i].start, rows[i].end);

		run(vm, rows[i].how);
		favo_vm_free(vm);
	}
}

struct stopper {
	struct favo_timer timer;
	struct favo_vm *vm;
};

static void stop_vm(struct favo_timer *t)
{
	struct favo_vm *vm = favo_container_of(t, struct stopper, timer)->vm;

	favo_vm_end(vm, FAVO_END_STOPPED, "test");
	favo_vm_end(vm, FAVO_END_PANIC, "too late");
}

static void stopped_while_it_spins(void **state)
{
	struct stopper t = {0};

	(void)state;
	if (!have_kvm())
		skip();
	t.vm = load(spin_start, spin_end);
	assert_int_equal(favo_timer_init(t.vm->loop, &t.timer, stop_vm, NULL), 0);
	favo_timer_set(&t.timer, 20);
	run(t.vm, FAVO_END_STOPPED);
	favo_timer_fini(&t.timer);
	favo_vm_free(t.vm);
}

static void unknown_accesses(void **state)
{
	struct favo_iobus_stats pio, mmio;
	struct favo_vm *vm;
	json_t *j;

	(void)state;
	if (!have_kvm())
		skip();
	vm = load(unknown_start, unknown_end);
	run(vm, FAVO_END_SHUTDOWN);
	assert_int_equal(word(vm, 0), 0xff);
	assert_int_equal(word(vm, 1), 0xffffffff);
	assert_int_equal(word(vm, 2), 0xffffffff);
	assert_int_equal(word(vm, 3), 0xffffffff);
	favo_iobus_get_stats(vm->pio, &pio);
	favo_iobus_get_stats(vm->mmio, &mmio);
	assert_int_equal(pio.unknown_reads, 4);
	assert_int_equal(pio.unknown_writes, 1);
	assert_int_equal(pio.forbidden, 1);
	assert_int_equal(mmio.unknown_reads, 1);
	assert_int_equal(mmio.unknown_writes, 2);
	j = favo_control_answer(vm, "n", "{\"op\":\"stats\"}", 14);
	assert_int_equal(json_integer_value(
				 json_object_get(json_object_get(j, "pio"), "forbidden")),
			 1);
	assert_true(json_integer_value(
			    json_object_get(json_object_get(j, "exits"), "io")) >= 7);
	json_decref(j);
	favo_vm_free(vm);
}

static void configuration_space(void **state)
{
	struct favo_vm *vm;

	(void)state;
	if (!have_kvm())
		skip();
	vm = load(config_start, config_end);
	run(vm, FAVO_END_SHUTDOWN);
	/* 00:1f.0 is absent, and writing does not change that. */
	assert_int_equal(word(vm, 0), 0xffffffff);
	assert_int_equal(word(vm, 1), 0xffffffff);
	favo_vm_free(vm);
}

struct irq_test {
	struct favo_timer timer;
	struct favo_vm *vm;
	struct favo_irq *irq;
	int fd;
	int ticks;
};

/* First interrupt by KVM_SIGNAL_MSI, second through the eventfd. */
static void fire(struct favo_timer *t)
{
	struct irq_test *it = favo_container_of(t, struct irq_test, timer);
	const struct favo_msi msi = {0xfee00000, 0x40};
	uint64_t one = 1;

	if (it->ticks++ > 5000)
		favo_vm_end(it->vm, FAVO_END_ERROR, "no interrupt");
	if (word(it->vm, 1) && it->fd < 0) {
		/* Pending while masked, fires at unmask. */
		favo_irq_trigger(it->irq);
		assert_true(favo_irq_pending(it->irq));
		assert_int_equal(favo_irq_set(it->irq, &msi), 0);
		it->fd = 0;
	} else if (word(it->vm, 0) == 1 && it->fd == 0) {
		it->fd = favo_irq_fd(it->irq, NULL);
		assert_true(it->fd > 0);
		assert_int_equal(write(it->fd, &one, sizeof(one)), 8);
	}
	favo_timer_set(t, 1);
}

static void interrupts(void **state)
{
	struct irq_test it = {.fd = -1};
	uint32_t offset, handler;
	uint8_t gate[8] = {0};

	(void)state;
	if (!have_kvm())
		skip();
	it.vm = load(interrupt_start, interrupt_end);
	memcpy(&offset, handler_offset, 4);
	handler = LOAD_AT + offset;
	memcpy(gate, &handler, 2);
	gate[2] = 0x10;
	gate[5] = 0x8e;
	memcpy(gate + 6, (uint8_t *)&handler + 2, 2);
	assert_int_equal(favo_guest_write(it.vm->mem, 0x9000 + 0x40 * 8, gate, 8), 0);
	assert_int_equal(favo_irq_new(&it.irq, it.vm->irqs, NULL), 0);
	assert_int_equal(favo_timer_init(it.vm->loop, &it.timer, fire, NULL), 0);
	favo_timer_set(&it.timer, 1);
	run(it.vm, FAVO_END_SHUTDOWN);
	assert_int_equal(word(it.vm, 0), 2);
	favo_irq_free(it.irq);
	favo_timer_fini(&it.timer);
	favo_vm_free(it.vm);
}

static void control_answers(void **state)
{
	static const struct {
		const char *line;
		bool ok;
	} rows[] = {
		{"", false},
		{"{", false},
		{"[]", false},
		{"7", false},
		{"{}", false},
		{"{\"op\":7}", false},
		{"{\"op\":\"fly\"}", false},
		{"{\"op\":\"status\",\"op\":\"stop\"}", false},
		{"{\"op\":\"status\"}", true},
		{"{\"op\":\"stats\"}", true},
		{"{\"op\":\"powerbutton\"}", true},
		{"{\"op\":\"stop\"}", true},
	};
	struct favo_vm *vm;
	unsigned i;

	(void)state;
	if (!have_kvm())
		skip();
	vm = load(spin_start, spin_end);
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		json_t *j =
			favo_control_answer(vm, NULL, rows[i].line, strlen(rows[i].line));

		if (json_is_true(json_object_get(j, "ok")) != rows[i].ok)
			fail_msg("row %u", i);
		assert_int_equal(json_object_get(j, "error") != NULL, !rows[i].ok);
		json_decref(j);
	}
	/* Stopped before it ever ran. */
	run(vm, FAVO_END_STOPPED);
	favo_vm_free(vm);
}

static void bad_options(void **state)
{
	static const struct {
		unsigned ncpus;
		uint64_t mem;
	} rows[] = {
		{0, 32 << 20}, {100000, 32 << 20},  {1, 0},
		{1, 1 << 20},  {1, (32 << 20) + 1}, {1, 1ULL << 45},
	};
	unsigned i;

	(void)state;
	if (!have_kvm())
		skip();
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		const struct favo_vm_opts opts = {
			.kvm_fd = -1,
			.ncpus = rows[i].ncpus,
			.mem = {.size = rows[i].mem, .huge = FAVO_HUGE_OFF},
			.serial_fd = -1,
		};
		struct favo_vm *vm = NULL;
		struct favo_err err = {0};

		if (favo_vm_new(&vm, &opts, &err) != -EINVAL)
			fail_msg("row %u: %s", i, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(endings),
		cmocka_unit_test(stopped_while_it_spins),
		cmocka_unit_test(unknown_accesses),
		cmocka_unit_test(configuration_space),
		cmocka_unit_test(interrupts),
		cmocka_unit_test(control_answers),
		cmocka_unit_test(bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest "kernel" with a PVH entry: it hangs, or says through pvpanic
 * (port 0x505, docs/specs/pvpanic of QEMU) that it panicked. Tests import it
 * as the kernel of an image.
 *
 *   gcc -DHANG|-DPANIC -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 ...
 */
	.section .note.Xen, "a", @note
	.long 4, 8, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad start

	.text
	.code32
	.globl start
start:
#ifdef PANIC
	mov $0x505, %dx
	mov $1, %al
	out %al, %dx
#endif
	cli
1:	hlt
	jmp 1b

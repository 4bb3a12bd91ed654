/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmxnet3 as the driver sees it, device revision 1: registers, commands, and
 * where things lie in guest memory. Names and values as in Linux
 * drivers/net/vmxnet3/vmxnet3_defs.h. Everything is little-endian.
 */
#pragma once

#define VMXNET3_VENDOR 0x15ad
#define VMXNET3_DEVICE 0x07b0

/* BAR 0, "passthrough": one register each 8 bytes. */
#define PT_IMR 0x000 /* per vector: 0 lets interrupts through, 1 masks */
#define PT_TXPROD 0x600 /* per transmit queue */
#define PT_RXPROD 0x800 /* per receive queue, ring 0 */
#define PT_RXPROD2 0xa00 /* ring 1 */

/* BAR 1, "virtual device". */
#define VD_VRRS 0x00 /* revisions offered, then the one chosen */
#define VD_UVRS 0x08
#define VD_DSAL 0x10 /* address of the shared area */
#define VD_DSAH 0x18
#define VD_CMD 0x20
#define VD_MACL 0x28
#define VD_MACH 0x30
#define VD_ICR 0x38
#define VD_ECR 0x40

enum {
	CMD_ACTIVATE = 0xcafe0000,
	CMD_QUIESCE,
	CMD_RESET,
	CMD_UPDATE_RX_MODE,
	CMD_GET_QUEUE_STATUS = 0xf00d0000,
	CMD_GET_STATS,
	CMD_GET_LINK,
	CMD_GET_MAC_LO,
	CMD_GET_MAC_HI,
	CMD_GET_DID_LO,
	CMD_GET_DID_HI,
	CMD_GET_EXTRA,
	CMD_GET_CONF_INTR,
};

#define CONF_INTR_MSIX_AUTO 3 /* MSI-X; the device masks what it raised */
#define LINK_UP_10G (10000u << 16 | 1)

/* Events in the shared area. */
#define EVENT_RQ_ERROR 1
#define EVENT_TQ_ERROR 2

/* Shared area. */
#define SHARED_SIZE 800
#define SHARED_MAGIC 0xbabefee1u
#define S_MAGIC 0
#define S_FEATURES 24
#define S_QUEUES_PA 40
#define S_QUEUES_LEN 52
#define S_NUM_TX 62
#define S_NUM_RX 63
#define S_AUTO_MASK 80
#define S_NUM_INTRS 81
#define S_EVENT_INTR 82
#define S_RX_MODE 120
#define S_ECR 696

#define RX_MODE_UNICAST 0x01
#define RX_MODE_MULTICAST 0x02
#define RX_MODE_BROADCAST 0x04
#define RX_MODE_ALL_MULTI 0x08
#define RX_MODE_PROMISC 0x10

/* Descriptions of queues: all transmit queues, then all receive queues. */
#define QUEUE_DESC_SIZE 256
#define TQ_RING_PA 16
#define TQ_COMP_PA 32
#define TQ_RING_SIZE 56
#define TQ_COMP_SIZE 64
#define TQ_INTR 72
#define TQ_STOPPED 80
#define TQ_ERROR 84
#define TQ_STATS 88
#define RQ_RING_PA 16 /* two of them */
#define RQ_COMP_PA 32
#define RQ_RING_SIZE 56 /* two of them */
#define RQ_COMP_SIZE 64
#define RQ_INTR 72
#define RQ_STOPPED 80
#define RQ_ERROR 84
#define RQ_STATS 88
#define STATS_WORDS 10
#define QUEUE_ERROR_BAD_DESCRIPTOR 0x80000000u

#define RING_ALIGN 512
#define RING_STEP 32
#define RING_MAX 4096
#define COMP_MAX 8192

/* Transmit descriptor: address, then two words. */
#define TXD_LEN(w2) ((w2)&0x3fff) /* 0 stands for 16384 */
#define TXD_GEN 14
#define TXD_MSSCOF(w2) ((w2) >> 18)
#define TXD_HLEN(w3) ((w3)&0x3ff)
#define TXD_OM(w3) ((w3) >> 10 & 3)
#define TXD_OM_CSUM 2
#define TXD_OM_TSO 3
#define TXD_EOP 0x1000u
#define TXD_WANTS_COMP 0x2000u
#define TXD_TAG 0x8000u
#define TXD_TCI(w3) ((w3) >> 16)

/* Receive descriptor. */
#define RXD_LEN(w2) ((w2)&0x3fff)
#define RXD_BODY 0x4000u
#define RXD_GEN 31

/* Completions: generation is the top bit of the last word. */
#define COMP_GEN 31
#define RXC_EOP 0x4000u
#define RXC_SOP 0x8000u
#define RXC_QUEUE(q) ((uint32_t)(q) << 16)
#define RXC_NO_CSUM 0x40000000u
#define RXC_TYPE (3u << 24)
#define RXC_L4_OK 0x10000u
#define RXC_UDP 0x20000u
#define RXC_TCP 0x40000u
#define RXC_IP_OK 0x80000u
#define RXC_V6 0x100000u
#define RXC_V4 0x200000u

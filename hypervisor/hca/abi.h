/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PVRDMA as the guest sees it: shared region, commands, queue entries,
 * doorbells (Linux include/uapi/rdma/vmw_pvrdma-abi.h and
 * drivers/infiniband/hw/vmw_pvrdma/pvrdma_dev_api.h, device version 20).
 * Little-endian unless its name ends in _be. Fields that no one needs are padding.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PVRDMA_VERSION 20
#define PVRDMA_PAGE 4096u
#define PVRDMA_DIR_ENTRIES 512u
#define PVRDMA_PAGES_MAX (PVRDMA_DIR_ENTRIES * PVRDMA_DIR_ENTRIES)
#define PVRDMA_GSI_QPN 1
#define PVRDMA_GRH 40 /* bytes before a datagram in its receive buffer */

/* What this device offers. Powers of two where the driver rounds up. */
#define PVRDMA_MAX_QP 8192
#define PVRDMA_MAX_CQ 1023 /* the notification ring cannot overflow */
#define PVRDMA_MAX_SRQ 1024
#define PVRDMA_MAX_PD 4096
#define PVRDMA_MAX_MR 65535
#define PVRDMA_MAX_WR 16384
#define PVRDMA_MAX_SGE 32
#define PVRDMA_MAX_CQE 131072
#define PVRDMA_MAX_GID 128
#define PVRDMA_MAX_MSG (1u << 30)
#define PVRDMA_MAX_RD_ATOM 16
#define PVRDMA_MTU 5 /* IB enum: 4096 */
#define PVRDMA_MTU_BYTES 4096u

struct pvrdma_ring_page_info {
	uint32_t num_pages; /* with the state page */
	uint32_t pad;
	uint64_t pdir_dma;
};

struct pvrdma_caps {
	uint64_t fw_ver, node_guid_be, sys_image_guid_be, max_mr_size, page_size_cap,
		atomic_arg_sizes;
	uint32_t ex_comp_mask, device_cap_flags2, max_fa_bit_boundary,
		log_max_atomic_inline_arg, vendor_id, vendor_part_id, hw_ver, max_qp,
		max_qp_wr, device_cap_flags, max_sge, max_sge_rd, max_cq, max_cqe, max_mr,
		max_pd, max_qp_rd_atom, max_ee_rd_atom, max_res_rd_atom,
		max_qp_init_rd_atom, max_ee_init_rd_atom, max_ee, max_rdd, max_mw,
		max_raw_ipv6_qp, max_raw_ethy_qp, max_mcast_grp, max_mcast_qp_attach,
		max_total_mcast_qp_attach, max_ah, max_fmr, max_map_per_fmr, max_srq,
		max_srq_wr, max_srq_sge, max_uar, gid_tbl_len;
	uint16_t max_pkeys;
	uint8_t local_ca_ack_delay, phys_port_cnt, mode, atomic_ops, bmme_flags,
		gid_types;
	uint32_t max_fast_reg_page_list_len;
};

struct pvrdma_dsr {
	uint32_t driver_version, pad;
	uint64_t gos_info, cmd_slot_dma, resp_slot_dma;
	struct pvrdma_ring_page_info async_ring, cq_ring;
	uint64_t uar_pfn;
	struct pvrdma_caps caps;
};

/* First page of each queue: index pairs of its two halves. */
struct pvrdma_ring {
	_Atomic uint32_t prod_tail, cons_head;
};

struct pvrdma_ring_state {
	struct pvrdma_ring tx, rx;
};

enum {
	PVRDMA_CMD_QUERY_PORT,
	PVRDMA_CMD_QUERY_PKEY,
	PVRDMA_CMD_CREATE_PD,
	PVRDMA_CMD_DESTROY_PD,
	PVRDMA_CMD_CREATE_MR,
	PVRDMA_CMD_DESTROY_MR,
	PVRDMA_CMD_CREATE_CQ,
	PVRDMA_CMD_RESIZE_CQ,
	PVRDMA_CMD_DESTROY_CQ,
	PVRDMA_CMD_CREATE_QP,
	PVRDMA_CMD_MODIFY_QP,
	PVRDMA_CMD_QUERY_QP,
	PVRDMA_CMD_DESTROY_QP,
	PVRDMA_CMD_CREATE_UC,
	PVRDMA_CMD_DESTROY_UC,
	PVRDMA_CMD_CREATE_BIND,
	PVRDMA_CMD_DESTROY_BIND,
	PVRDMA_CMD_CREATE_SRQ,
	PVRDMA_CMD_MODIFY_SRQ,
	PVRDMA_CMD_QUERY_SRQ,
	PVRDMA_CMD_DESTROY_SRQ,
	PVRDMA_CMDS,
};

#define PVRDMA_CMD_RESP 0x80000000u
#define PVRDMA_CMD_SIZE 184u /* what the driver copies */
#define PVRDMA_RESP_SIZE 176u

struct pvrdma_req_hdr {
	uint64_t response;
	uint32_t cmd, reserved;
};

struct pvrdma_resp_hdr {
	uint64_t response;
	uint32_t ack;
	uint8_t err, reserved[3];
};

struct pvrdma_gid {
	uint8_t raw[16];
};

struct pvrdma_ah_attr {
	struct pvrdma_gid dgid;
	uint32_t flow_label;
	uint8_t sgid_index, hop_limit, traffic_class, reserved;
	uint16_t dlid, vlan_id;
	uint8_t sl, src_path_bits, static_rate, ah_flags, port_num, dmac[6], reserved2;
};

struct pvrdma_qp_cap {
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data,
		reserved;
};

struct pvrdma_qp_attr {
	uint32_t qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn,
		dest_qp_num, qp_access_flags;
	uint16_t pkey_index, alt_pkey_index;
	uint8_t en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic,
		min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry, alt_port_num,
		alt_timeout, reserved[5];
	struct pvrdma_qp_cap cap;
	struct pvrdma_ah_attr ah_attr, alt_ah_attr;
};

/* Bits of attr_mask of MODIFY_QP: as IB_QP_*. */
enum {
	PVRDMA_QP_STATE = 1 << 0,
	PVRDMA_QP_CUR_STATE = 1 << 1,
	PVRDMA_QP_EN_SQD = 1 << 2,
	PVRDMA_QP_ACCESS = 1 << 3,
	PVRDMA_QP_PKEY = 1 << 4,
	PVRDMA_QP_PORT = 1 << 5,
	PVRDMA_QP_QKEY = 1 << 6,
	PVRDMA_QP_AV = 1 << 7,
	PVRDMA_QP_PATH_MTU = 1 << 8,
	PVRDMA_QP_TIMEOUT = 1 << 9,
	PVRDMA_QP_RETRY = 1 << 10,
	PVRDMA_QP_RNR_RETRY = 1 << 11,
	PVRDMA_QP_RQ_PSN = 1 << 12,
	PVRDMA_QP_MAX_RD = 1 << 13,
	PVRDMA_QP_ALT = 1 << 14,
	PVRDMA_QP_MIN_RNR = 1 << 15,
	PVRDMA_QP_SQ_PSN = 1 << 16,
	PVRDMA_QP_MAX_DEST_RD = 1 << 17,
	PVRDMA_QP_MIG = 1 << 18,
	PVRDMA_QP_CAP = 1 << 19,
	PVRDMA_QP_DEST_QPN = 1 << 20,
};

struct pvrdma_port_attr {
	uint32_t state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz,
		bad_pkey_cntr, qkey_viol_cntr;
	uint16_t pkey_tbl_len, lid, sm_lid;
	uint8_t lmc, max_vl, sm_sl, subnet_timeout, init_type_reply, active_width,
		active_speed, phys_state, reserved[2];
};

struct pvrdma_srq_attr {
	uint32_t max_wr, max_sge, srq_limit, reserved;
};

/* Every command starts with the header; one anonymous struct each. */
union pvrdma_req {
	struct pvrdma_req_hdr hdr;
	struct {
		struct pvrdma_req_hdr hdr;
		uint8_t port_num, index;
	} query; /* port and pkey */
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t handle; /* of what is to be destroyed or queried */
		uint32_t attr_mask;
	} by_handle;
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t ctx_handle;
	} create_pd;
	struct {
		struct pvrdma_req_hdr hdr;
		uint64_t start, length, pdir_dma;
		uint32_t pd_handle, access_flags, flags, nchunks;
	} create_mr;
	struct {
		struct pvrdma_req_hdr hdr;
		uint64_t pdir_dma;
		uint32_t ctx_handle, cqe, nchunks;
	} create_cq;
	struct {
		struct pvrdma_req_hdr hdr;
		uint64_t pdir_dma;
		uint32_t pd_handle, send_cq, recv_cq, srq_handle, max_send_wr,
			max_recv_wr, max_send_sge, max_recv_sge, max_inline_data, lkey,
			access_flags;
		uint16_t total_chunks, send_chunks, max_atomic_arg;
		uint8_t sq_sig_all, qp_type, is_srq;
	} create_qp;
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t qp_handle, attr_mask;
		struct pvrdma_qp_attr attrs;
	} modify_qp;
	struct {
		struct pvrdma_req_hdr hdr;
		uint64_t pfn;
	} create_uc;
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t mtu, vlan, index;
		struct pvrdma_gid gid;
		uint8_t gid_type;
	} create_bind;
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t index;
		struct pvrdma_gid gid;
	} destroy_bind;
	struct {
		struct pvrdma_req_hdr hdr;
		uint64_t pdir_dma;
		uint32_t pd_handle, nchunks, max_wr, max_sge, srq_limit, reserved;
		uint8_t srq_type;
	} create_srq;
	struct {
		struct pvrdma_req_hdr hdr;
		uint32_t srq_handle, attr_mask;
		struct pvrdma_srq_attr attrs;
	} modify_srq;
	uint8_t raw[PVRDMA_CMD_SIZE];
};

union pvrdma_resp {
	struct pvrdma_resp_hdr hdr;
	struct {
		struct pvrdma_resp_hdr hdr;
		struct pvrdma_port_attr attrs;
	} query_port;
	struct {
		struct pvrdma_resp_hdr hdr;
		uint16_t pkey;
	} query_pkey;
	struct {
		struct pvrdma_resp_hdr hdr;
		uint32_t handle;
		union {
			struct {
				uint32_t lkey, rkey;
			};
			uint32_t cqe;
		};
	} create; /* PD, UC, SRQ, MR with keys, CQ with its size */
	struct {
		struct pvrdma_resp_hdr hdr;
		uint32_t qpn, qp_handle;
		uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge,
			max_inline_data;
	} create_qp;
	struct {
		struct pvrdma_resp_hdr hdr;
		struct pvrdma_qp_attr attrs;
	} query_qp;
	struct {
		struct pvrdma_resp_hdr hdr;
		struct pvrdma_srq_attr attrs;
	} query_srq;
	uint8_t raw[PVRDMA_RESP_SIZE];
};

#define PVRDMA_MR_DMA 1u
#define PVRDMA_MR_FRMR 2u

enum {
	PVRDMA_LOCAL_WRITE = 1,
	PVRDMA_REMOTE_WRITE = 2,
	PVRDMA_REMOTE_READ = 4,
	PVRDMA_REMOTE_ATOMIC = 8,
};

enum { PVRDMA_QPT_GSI = 1, PVRDMA_QPT_RC = 2, PVRDMA_QPT_UD = 4 };

enum {
	PVRDMA_RESET,
	PVRDMA_INIT,
	PVRDMA_RTR,
	PVRDMA_RTS,
	PVRDMA_SQD,
	PVRDMA_SQE,
	PVRDMA_ERR,
};

struct pvrdma_av {
	uint32_t port_pd, sl_tclass_flowlabel;
	struct pvrdma_gid dgid;
	uint8_t src_path_bits, gid_index, stat_rate, hop_limit, dmac[6], reserved[6];
};

struct pvrdma_sge {
	uint64_t addr;
	uint32_t length, lkey;
};

struct pvrdma_sq_wqe {
	uint64_t wr_id;
	uint32_t num_sge, total_len, opcode, send_flags, ex, reserved;
	union {
		struct {
			uint64_t remote_addr;
			uint32_t rkey;
		} rdma;
		struct {
			uint64_t remote_addr, compare_add, swap;
			uint32_t rkey;
		} atomic;
		struct {
			uint64_t iova_start, pl_pdir_dma;
			uint32_t page_shift, page_list_len, length, access_flags, rkey;
		} fast_reg;
		struct {
			uint32_t remote_qpn, remote_qkey;
			struct pvrdma_av av;
		} ud;
	};
};

struct pvrdma_rq_wqe {
	uint64_t wr_id;
	uint32_t num_sge, total_len;
};

enum {
	PVRDMA_WR_WRITE,
	PVRDMA_WR_WRITE_IMM,
	PVRDMA_WR_SEND,
	PVRDMA_WR_SEND_IMM,
	PVRDMA_WR_READ,
	PVRDMA_WR_CMP_SWP,
	PVRDMA_WR_FETCH_ADD,
	PVRDMA_WR_LSO,
	PVRDMA_WR_SEND_INV,
	PVRDMA_WR_READ_INV,
	PVRDMA_WR_LOCAL_INV,
	PVRDMA_WR_FAST_REG,
};

enum { PVRDMA_SEND_SIGNALED = 2, PVRDMA_SEND_SOLICITED = 4 };

struct pvrdma_cqe {
	uint64_t wr_id, qp;
	uint32_t opcode, status, byte_len, imm_data_be, src_qp, wc_flags, vendor_err;
	uint16_t pkey_index, slid;
	uint8_t sl, dlid_path_bits, port_num, smac[6], network_hdr_type, reserved[6];
};

enum {
	PVRDMA_WC_SEND,
	PVRDMA_WC_WRITE,
	PVRDMA_WC_READ,
	PVRDMA_WC_CMP_SWP,
	PVRDMA_WC_FETCH_ADD,
	PVRDMA_WC_BIND,
	PVRDMA_WC_LSO,
	PVRDMA_WC_LOCAL_INV,
	PVRDMA_WC_FAST_REG,
	PVRDMA_WC_RECV = 128,
	PVRDMA_WC_RECV_IMM,
};

enum {
	PVRDMA_WC_SUCCESS,
	PVRDMA_WC_LOC_LEN,
	PVRDMA_WC_LOC_QP_OP,
	PVRDMA_WC_LOC_PROT = 4,
	PVRDMA_WC_WR_FLUSH,
	PVRDMA_WC_LOC_ACCESS = 8,
	PVRDMA_WC_REM_INV_REQ,
	PVRDMA_WC_REM_ACCESS,
	PVRDMA_WC_REM_OP,
	PVRDMA_WC_RETRY_EXC,
	PVRDMA_WC_RNR_RETRY_EXC,
};

enum {
	PVRDMA_WCF_GRH = 1,
	PVRDMA_WCF_IMM = 2,
	PVRDMA_WCF_INV = 4,
	PVRDMA_WCF_NETHDR = 64
};
enum { PVRDMA_NET_IPV4 = 1, PVRDMA_NET_IPV6 = 2 };

struct pvrdma_eqe {
	uint32_t type, info;
};

enum {
	PVRDMA_EVENT_CQ_ERR,
	PVRDMA_EVENT_QP_FATAL,
	PVRDMA_EVENT_QP_REQ_ERR,
	PVRDMA_EVENT_QP_ACCESS_ERR,
	PVRDMA_EVENT_COMM_EST,
	PVRDMA_EVENT_PORT_ACTIVE = 9,
	PVRDMA_EVENT_SRQ_ERR = 14,
	PVRDMA_EVENT_SRQ_LIMIT,
	PVRDMA_EVENT_QP_LAST_WQE,
};

#define PVRDMA_UAR_HANDLE 0x00ffffffu
#define PVRDMA_UAR_QP 0
#define PVRDMA_UAR_CQ 4
#define PVRDMA_UAR_SRQ 8
#define PVRDMA_UAR_QP_SEND (1u << 30)
#define PVRDMA_UAR_QP_RECV (1u << 31)
#define PVRDMA_UAR_CQ_ARM_SOL (1u << 29)
#define PVRDMA_UAR_CQ_ARM (1u << 30)
#define PVRDMA_UAR_CQ_POLL (1u << 31)

#define PVRDMA_AT(type, field, at)                                                       \
	_Static_assert(offsetof(type, field) == (at), "offset of " #field)
_Static_assert(sizeof(struct pvrdma_dsr) == 280, "size of the shared region");
_Static_assert(sizeof(struct pvrdma_caps) == 208, "size of caps");
PVRDMA_AT(struct pvrdma_dsr, async_ring, 32);
PVRDMA_AT(struct pvrdma_dsr, caps, 72);
PVRDMA_AT(struct pvrdma_caps, max_qp, 76);
PVRDMA_AT(struct pvrdma_caps, max_mcast_grp, 152);
PVRDMA_AT(struct pvrdma_caps, max_uar, 188);
PVRDMA_AT(struct pvrdma_caps, mode, 200);
_Static_assert(sizeof(struct pvrdma_qp_attr) == 160, "size of qp_attr");
PVRDMA_AT(struct pvrdma_qp_attr, cap, 56);
PVRDMA_AT(struct pvrdma_qp_attr, ah_attr, 80);
_Static_assert(sizeof(struct pvrdma_ah_attr) == 40, "size of ah_attr");
PVRDMA_AT(struct pvrdma_ah_attr, dmac, 33);
_Static_assert(sizeof(struct pvrdma_port_attr) == 48, "size of port_attr");
_Static_assert(sizeof(union pvrdma_req) == PVRDMA_CMD_SIZE, "size of a command");
_Static_assert(sizeof(union pvrdma_resp) == PVRDMA_RESP_SIZE, "size of a response");
PVRDMA_AT(union pvrdma_req, create_qp.total_chunks, 68);
PVRDMA_AT(union pvrdma_req, create_qp.is_srq, 76);
PVRDMA_AT(union pvrdma_req, create_bind.gid, 28);
PVRDMA_AT(union pvrdma_req, create_srq.srq_type, 48);
_Static_assert(sizeof(struct pvrdma_sq_wqe) == 80, "size of a send WQE");
PVRDMA_AT(struct pvrdma_sq_wqe, atomic.rkey, 56);
PVRDMA_AT(struct pvrdma_sq_wqe, fast_reg.rkey, 64);
PVRDMA_AT(struct pvrdma_sq_wqe, ud.av, 40);
_Static_assert(sizeof(struct pvrdma_cqe) == 64, "size of a CQE");
PVRDMA_AT(struct pvrdma_cqe, smac, 51);

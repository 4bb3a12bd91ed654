// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Datagrams: UD queue pairs and the GSI (QP 1), over which rdma_cm connects.
 * What cannot be delivered is dropped, as on a wire; the sender's completion
 * tells only that it was sent. The receive buffer starts with 40 bytes for the
 * IPv6 header (or, in its last 20, the IPv4 header) of RoCE v2, which the
 * guest's kernel reads back, checksum included.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <string.h>

#include "hypervisor/hca/hca.h"

#define ROCE_OVERHEAD 24 /* UDP, BTH and CRC */

static bool is_v4(const struct pvrdma_gid *g)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(g->raw, mapped, sizeof(mapped));
}

static uint16_t ip_checksum(const void *head)
{
	const uint16_t *p = head;
	uint32_t sum = 0;

	for (unsigned i = 0; i < 10; i++)
		sum += p[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

static uint8_t make_header(uint8_t out[PVRDMA_GRH], const struct pvrdma_av *av,
			   const struct pvrdma_gid *sgid, uint32_t len)
{
	uint8_t hops = av->hop_limit ? av->hop_limit : 64;

	memset(out, 0, PVRDMA_GRH);
	if (is_v4(sgid) && is_v4(&av->dgid)) {
		struct iphdr ip = {
			.version = 4,
			.ihl = 5,
			.tos = (uint8_t)(av->sl_tclass_flowlabel >> 20),
			.tot_len = htons((uint16_t)(20 + ROCE_OVERHEAD + len)),
			.frag_off = htons(0x4000),
			.ttl = hops,
			.protocol = IPPROTO_UDP,
		};

		memcpy(&ip.saddr, sgid->raw + 12, 4);
		memcpy(&ip.daddr, av->dgid.raw + 12, 4);
		ip.check = ip_checksum(&ip);
		memcpy(out + PVRDMA_GRH - sizeof(ip), &ip, sizeof(ip));
		return PVRDMA_NET_IPV4;
	}
	struct ip6_hdr ip6 = {
		.ip6_flow = htonl(6u << 28 | (av->sl_tclass_flowlabel & 0xfffffff)),
		.ip6_plen = htons((uint16_t)(ROCE_OVERHEAD + len)),
		.ip6_nxt = IPPROTO_UDP,
		.ip6_hlim = hops,
	};
	memcpy(&ip6.ip6_src, sgid, sizeof(*sgid));
	memcpy(&ip6.ip6_dst, &av->dgid, sizeof(*sgid));
	memcpy(out, &ip6, sizeof(ip6));
	return PVRDMA_NET_IPV6;
}

static struct hca_qp *receiver(struct favo_hca *hca, struct hca_qp *qp,
			       const struct pvrdma_sq_wqe *w)
{
	struct hca_vm *vm = favo_hca_find_gid(hca, &w->ud.av.dgid);
	uint32_t qkey = w->ud.remote_qkey >> 31 ? qp->attr.qkey : w->ud.remote_qkey;
	struct hca_qp *to;

	if (!vm || !hca_vm_runs(vm))
		return NULL;
	to = w->ud.remote_qpn == PVRDMA_GSI_QPN
		     ? vm->gsi
		     : hca_get(&vm->qps, w->ud.remote_qpn & 0xffff);
	if (!to || to->qpn != w->ud.remote_qpn || to->type == PVRDMA_QPT_RC ||
	    to->state < PVRDMA_RTR || to->state > PVRDMA_SQE || to->attr.qkey != qkey)
		return NULL;
	return to;
}

static void deliver(struct hca_qp *qp, struct hca_qp *to, struct hca_send *s,
		    const struct pvrdma_gid *sgid)
{
	struct hca_recv *r = &to->recv;
	struct pvrdma_cqe cqe = {
		.opcode = PVRDMA_WC_RECV,
		.byte_len = s->length + PVRDMA_GRH,
		.src_qp = qp->qpn,
		.wc_flags = PVRDMA_WCF_GRH | PVRDMA_WCF_NETHDR,
	};
	struct hca_span from = {
		.vm = qp->obj.vm, .pd = qp->pd, .sge = s->sge, .nsge = s->nsge};
	uint8_t head[PVRDMA_GRH];
	struct hca_span span;
	int ret = favo_hca_recv_take(to, r);

	if (ret < 0)
		favo_hca_qp_error(to, PVRDMA_EVENT_QP_FATAL);
	if (ret <= 0)
		return;
	r->held = false;
	cqe.network_hdr_type = make_header(head, &s->w.ud.av, sgid, s->length);
	if (s->w.opcode == PVRDMA_WR_SEND_IMM) {
		cqe.imm_data_be = s->w.ex;
		cqe.wc_flags |= PVRDMA_WCF_IMM;
	}
	span = (struct hca_span){.vm = to->obj.vm,
				 .pd = to->pd,
				 .need = PVRDMA_LOCAL_WRITE,
				 .sge = r->sge,
				 .nsge = r->nsge};
	if (r->length < cqe.byte_len)
		cqe.status = PVRDMA_WC_LOC_LEN;
	else if (favo_hca_span_write(&span, head, sizeof(head)) < 0 ||
		 favo_hca_copy(&span, &from, s->length) < 0)
		cqe.status = PVRDMA_WC_LOC_PROT;
	favo_hca_complete_recv(to, r, &cqe, s->w.send_flags & PVRDMA_SEND_SOLICITED);
	if (cqe.status != PVRDMA_WC_SUCCESS)
		favo_hca_qp_error(to, -1);
}

static uint32_t send_one(struct favo_hca *hca, struct hca_qp *qp, struct hca_send *s)
{
	const struct hca_span from = {
		.vm = qp->obj.vm, .pd = qp->pd, .sge = s->sge, .nsge = s->nsge};
	const struct hca_gid *sgid = &qp->obj.vm->gids[0];
	struct hca_qp *to;

	if (s->w.opcode != PVRDMA_WR_SEND && s->w.opcode != PVRDMA_WR_SEND_IMM)
		return PVRDMA_WC_LOC_QP_OP;
	if (s->length > PVRDMA_MTU_BYTES)
		return PVRDMA_WC_LOC_LEN;
	/* The source address is one that the guest owns, or nothing goes out. */
	if (s->w.ud.av.gid_index >= PVRDMA_MAX_GID)
		return PVRDMA_WC_LOC_QP_OP;
	sgid += s->w.ud.av.gid_index;
	if (!sgid->used)
		return PVRDMA_WC_LOC_QP_OP;
	if (!favo_hca_span_check(&from))
		return PVRDMA_WC_LOC_PROT;
	to = receiver(hca, qp, &s->w);
	if (to)
		deliver(qp, to, s, &sgid->gid);
	hca->messages++;
	hca->bytes += s->length;
	return PVRDMA_WC_SUCCESS;
}

bool favo_hca_ud_turn(struct favo_hca *hca, struct hca_qp *qp)
{
	struct hca_send *s = &hca->send;
	bool did = false;

	for (unsigned i = 0; i < HCA_BURST; i++) {
		uint32_t status;
		int ret;

		if (qp->state == PVRDMA_ERR || qp->state == PVRDMA_SQE)
			return favo_hca_qp_flush(qp) || did;
		if (qp->state != PVRDMA_RTS)
			return did;
		ret = favo_hca_send_peek(qp, s, &status);
		if (ret == 0)
			return did;
		did = true;
		if (ret < 0) {
			favo_hca_qp_error(qp, PVRDMA_EVENT_QP_FATAL);
			continue;
		}
		if (status == PVRDMA_WC_SUCCESS)
			status = send_one(hca, qp, s);
		favo_hca_complete_send(qp, s, status, s->length);
		if (status != PVRDMA_WC_SUCCESS && qp->state == PVRDMA_RTS)
			qp->state = PVRDMA_SQE; /* sends are flushed, receives go on */
	}
	return did;
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The root disk of a VM, read through dm-verity: one block device for all VMs
 * of an image on this node, each block checked when it enters the page cache.
 * The kernel counts its users and removes it with the last one; we hold a
 * descriptor per job only to learn afterwards whether a block was damaged.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "images/verity.h"
#include "provision/noded/noded.h"

static int open_verity(struct job *job, int *fd, struct favo_err *err)
{
	const struct favo_manifest *m = job->image.manifest;
	struct noded *nd = job->nd;
	unsigned int flags = 0;
	struct stat st;
	int ret;

	/* A device is one that fetches what is read. */
	if (fstat(job->image.root_fd, &st) == 0 && S_ISBLK(st.st_mode))
		flags = FAVO_VERITY_NO_READAHEAD;
	pthread_mutex_lock(&nd->verity_lock);
	ret = favo_verity_open(fd, &m->id, job->image.root_fd, m->root.size,
			       &m->root.verity, flags, job->root_name, err);
	pthread_mutex_unlock(&nd->verity_lock);
	return ret;
}

/* Without: chunks were checked when they came, and nothing is afterwards. */
static int without_verity(struct job *job, int *fd, const char *why, struct favo_err *err)
{
	if (strcmp(job->nd->conf->image_verity, "always") == 0)
		return favo_fail(err, EPERM, "reads cannot be verified: %s", why);
	favo_log(FAVO_WARN, "job %u: reads of %s are not verified: %s", job->s.job,
		 job->grant.image, why);
	*fd = favo_steal_fd(&job->image.root_fd);
	return 0;
}

int favo_root_open(struct job *job, int *fd, struct favo_err *err)
{
	struct favo_err why = {0};
	favo_autoclose int dev = -1;
	int ret;

	job->root_name[0] = '\0';
	if (strcmp(job->nd->conf->image_verity, "never") == 0) {
		*fd = favo_steal_fd(&job->image.root_fd);
		return 0;
	}
	if (!job->image.manifest->root.has_verity)
		return without_verity(
			job, fd, "the image has no verity tree; import it again", err);
	ret = open_verity(job, &dev, &why);
	if (ret == -EOPNOTSUPP) {
		job->root_name[0] = '\0';
		return without_verity(job, fd, why.msg, err);
	}
	if (ret == 0) {
		job->root_dev = fcntl(dev, F_DUPFD_CLOEXEC, 0);
		*fd = favo_steal_fd(&dev);
		return 0;
	}
	if (ret == -EBADMSG) {
		struct favo_failure f = {0};

		favo_root_discard(job, &f);
		return favo_fail(err, EIO, "%s", f.cause);
	}
	return favo_fail(err, -ret, "%s", why.msg);
}

void favo_root_adopt(struct job *job)
{
	struct favo_digest id;

	if (favo_digest_parse(&id, job->vm.s.digest, NULL) < 0)
		return;
	pthread_mutex_lock(&job->nd->verity_lock);
	if (favo_verity_find(&job->root_dev, &id, job->root_name, NULL) < 0)
		job->root_name[0] = '\0';
	pthread_mutex_unlock(&job->nd->verity_lock);
}

void favo_root_discard(struct job *job, struct favo_failure *f)
{
	struct noded *nd = job->nd;
	struct favo_cache *cache;
	struct favo_err where = {0};
	struct favo_digest id;
	int ret;

	snprintf(
		f->remedy, sizeof(f->remedy),
		"submit again, the node fetches the image anew; ask the administrator to "
		"look at this node's disk");
	ret = favo_digest_parse(&id, job->grant.digest, &where);
	pthread_mutex_lock(&nd->lock);
	cache = nd->cache;
	pthread_mutex_unlock(&nd->lock);
	if (ret == 0)
		ret = cache ? favo_cache_verify(cache, &id, &where) : 0;
	snprintf(f->cause, sizeof(f->cause),
		 "image %.80s: this node's copy is damaged, reads of it were "
		 "refused%s%.200s",
		 job->grant.image, ret < 0 ? ": " : "", ret < 0 ? where.msg : "");
	if (ret == -EBADMSG) {
		pthread_mutex_lock(&nd->cache_lock);
		(void)favo_cache_discard(cache, &id, NULL);
		pthread_mutex_unlock(&nd->cache_lock);
	}
	favo_log(FAVO_ERROR, "job %u: %s", job->s.job, f->cause);
}

bool favo_root_is_damaged(const struct job *job)
{
	return job->root_name[0] && favo_verity_is_damaged(job->root_name);
}

void favo_root_close(struct job *job)
{
	favo_close(&job->root_dev);
	job->root_name[0] = '\0';
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Grant: build, sign, check; see grant.h and docs/format-grant.md.
 *
 * The text is base64url(JSON) "." base64url(Ed25519 signature over the JSON
 * bytes). The JSON is canonical (sorted keys, no blanks): a text that parses
 * but would be written differently is refused, so that there is exactly one
 * text for one grant. Does not know jobs, nodes or images.
 */
#include "provision/grant.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#define SIGNATURE_SIZE 64 /* RFC 8032, 5.1.6 */
#define CLOCK_SLACK_S 300
#define CANONICAL (JSON_SORT_KEYS | JSON_COMPACT)

struct favo_grant_key {
	EVP_PKEY *pkey;
};

static inline void cleanup_pkey(EVP_PKEY **p)
{
	EVP_PKEY_free(*p);
}

static inline void cleanup_md(EVP_MD_CTX **p)
{
	EVP_MD_CTX_free(*p);
}

static inline void cleanup_json(json_t **p)
{
	json_decref(*p);
}

#define autopkey __attribute__((cleanup(cleanup_pkey)))
#define automd __attribute__((cleanup(cleanup_md)))
#define autojson __attribute__((cleanup(cleanup_json)))

static const char b64_chars[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *b64_encode(char *out, const unsigned char *in, size_t len)
{
	size_t i = 0;

	for (; i + 2 < len; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];

		*out++ = b64_chars[v >> 18];
		*out++ = b64_chars[v >> 12 & 63];
		*out++ = b64_chars[v >> 6 & 63];
		*out++ = b64_chars[v & 63];
	}
	if (i < len) {
		uint32_t v = (uint32_t)in[i] << 16;

		if (i + 1 < len)
			v |= (uint32_t)in[i + 1] << 8;
		*out++ = b64_chars[v >> 18];
		*out++ = b64_chars[v >> 12 & 63];
		if (i + 1 < len)
			*out++ = b64_chars[v >> 6 & 63];
	}
	*out = '\0';
	return out;
}

static int b64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	return c == '_' ? 63 : -1;
}

/*
 * Decode exactly len characters into out (room for len / 4 * 3 + 2). Returns
 * the number of bytes, or -1: a strange character, a length that no encoder
 * makes, or left-over bits that are not zero.
 */
static ssize_t b64_decode(unsigned char *out, const char *in, size_t len)
{
	uint32_t acc = 0;
	unsigned int bits = 0;
	ssize_t n = 0;

	if (len % 4 == 1)
		return -1;
	for (size_t i = 0; i < len; i++) {
		int v = b64_value(in[i]);

		if (v < 0)
			return -1;
		acc = acc << 6 | (uint32_t)v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (unsigned char)(acc >> bits);
			acc &= (1U << bits) - 1;
		}
	}
	return acc ? -1 : n;
}

static bool is_hex(const char *s, size_t len)
{
	if (strlen(s) != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
			return false;
	return true;
}

/* Printable ASCII without blanks, quotes and backslashes, not empty. */
static bool is_plain_word(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || *s == '"' || *s == '\\')
			return false;
	return true;
}

static int check_fields(const struct favo_grant *g, struct favo_err *err)
{
	const char *bad = NULL;

	if (!is_hex(g->id, 16))
		bad = "id";
	else if (!is_plain_word(g->user) || strpbrk(g->user, "/:"))
		bad = "user";
	else if (!is_plain_word(g->image))
		bad = "image";
	else if (strncmp(g->digest, "sha256:", 7) != 0 || !is_hex(g->digest + 7, 64))
		bad = "digest";
	else if (strcmp(g->network, "private") != 0 && strcmp(g->network, "none") != 0)
		bad = "network";
	else if (!is_hex(g->secret, 64))
		bad = "secret";
	else if (g->uid == UINT32_MAX)
		bad = "uid";
	else if (g->gid == UINT32_MAX)
		bad = "gid";
	else if (g->cpus > 4096)
		bad = "cpus";
	else if (g->mem_mb > UINT64_C(1) << 32)
		bad = "mem_mb";
	else if (g->per_node < 1 || g->per_node > 256)
		bad = "per_node";
	else if (g->issued <= 0 || g->expires <= g->issued)
		bad = "expires";
	return bad ? favo_fail(err, EINVAL, "grant: field \"%s\" has no valid value", bad)
		   : 0;
}

static json_t *to_json(const struct favo_grant *g)
{
	return json_pack("{s:i s:s s:I s:I s:s s:s s:s s:I s:I s:I s:s s:I s:I s:s}", "v",
			 FAVO_GRANT_VERSION, "id", g->id, "uid", (json_int_t)g->uid,
			 "gid", (json_int_t)g->gid, "user", g->user, "image", g->image,
			 "digest", g->digest, "cpus", (json_int_t)g->cpus, "mem_mb",
			 (json_int_t)g->mem_mb, "per_node", (json_int_t)g->per_node,
			 "network", g->network, "issued", (json_int_t)g->issued,
			 "expires", (json_int_t)g->expires, "secret", g->secret);
}

static bool put_text(char *out, size_t size, const char *text)
{
	size_t len = strlen(text);

	if (len >= size)
		return false;
	memcpy(out, text, len + 1);
	return true;
}

static bool put_u32(uint32_t *out, json_int_t v)
{
	if (v < 0 || v > UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static int from_json(json_t *obj, struct favo_grant *g, struct favo_err *err)
{
	const char *id, *user, *image, *digest, *network, *secret;
	json_int_t uid, gid, cpus, mem_mb, per_node, issued, expires;
	json_error_t jerr;
	json_t *version = json_object_get(obj, "v");

	if (json_is_integer(version) && json_integer_value(version) != FAVO_GRANT_VERSION)
		return favo_fail(err, EPROTONOSUPPORT,
				 "grant has version %" JSON_INTEGER_FORMAT
				 ", this program knows version %d",
				 json_integer_value(version), FAVO_GRANT_VERSION);
	if (json_unpack_ex(obj, &jerr, JSON_STRICT,
			   "{s:i s:s s:I s:I s:s s:s s:s s:I s:I s:I s:s s:I s:I s:s}",
			   "v", &(int){0}, "id", &id, "uid", &uid, "gid", &gid, "user",
			   &user, "image", &image, "digest", &digest, "cpus", &cpus,
			   "mem_mb", &mem_mb, "per_node", &per_node, "network", &network,
			   "issued", &issued, "expires", &expires, "secret", &secret) < 0)
		return favo_fail(err, EBADMSG, "grant: %s", jerr.text);
	if (!put_text(g->id, sizeof(g->id), id) ||
	    !put_text(g->user, sizeof(g->user), user) ||
	    !put_text(g->image, sizeof(g->image), image) ||
	    !put_text(g->digest, sizeof(g->digest), digest) ||
	    !put_text(g->network, sizeof(g->network), network) ||
	    !put_text(g->secret, sizeof(g->secret), secret))
		return favo_fail(err, EBADMSG, "grant: a text is too long");
	if (!put_u32(&g->uid, uid) || !put_u32(&g->gid, gid) ||
	    !put_u32(&g->cpus, cpus) || !put_u32(&g->per_node, per_node) || mem_mb < 0)
		return favo_fail(err, EBADMSG, "grant: a number is out of range");
	g->mem_mb = (uint64_t)mem_mb;
	g->issued = issued;
	g->expires = expires;
	if (check_fields(g, err) < 0) {
		if (err)
			err->code = EBADMSG;
		return -EBADMSG;
	}
	return 0;
}

/* The two halves of a text, decoded. */
struct raw_grant {
	unsigned char json[FAVO_GRANT_TEXT_MAX];
	size_t json_len;
	unsigned char sig[SIGNATURE_SIZE + 3];
};

static int split_text(const char *text, struct raw_grant *raw, struct favo_err *err)
{
	size_t len = strnlen(text, FAVO_GRANT_TEXT_MAX + 1);
	const char *dot = memchr(text, '.', len);
	size_t left, right;
	ssize_t n;

	if (len > FAVO_GRANT_TEXT_MAX)
		return favo_fail(err, EBADMSG, "grant is longer than %d bytes",
				 FAVO_GRANT_TEXT_MAX);
	if (!dot)
		return favo_fail(err, EBADMSG, "grant has no signature");
	left = (size_t)(dot - text);
	right = len - left - 1;
	n = b64_decode(raw->json, text, left);
	if (n <= 0)
		return favo_fail(err, EBADMSG, "grant is not base64url");
	raw->json_len = (size_t)n;
	/* 64 bytes are 86 characters */
	if (right != 86 || b64_decode(raw->sig, dot + 1, right) != SIGNATURE_SIZE)
		return favo_fail(err, EBADMSG, "grant has no well-formed signature");
	return 0;
}

static int parse_payload(const struct raw_grant *raw, struct favo_grant *g,
			 struct favo_err *err)
{
	autojson json_t *obj = NULL;
	favo_autofree char *again = NULL;
	json_error_t jerr;

	obj = json_loadb((const char *)raw->json, raw->json_len, JSON_REJECT_DUPLICATES,
			 &jerr);
	if (!json_is_object(obj))
		return favo_fail(err, EBADMSG, "grant is not a JSON object");
	again = json_dumps(obj, CANONICAL);
	if (!again)
		return favo_fail(err, ENOMEM, "grant: %m");
	if (strlen(again) != raw->json_len ||
	    memcmp(again, raw->json, raw->json_len) != 0)
		return favo_fail(err, EBADMSG, "grant is not in canonical form");
	return from_json(obj, g, err);
}

int favo_grant_peek(const char *text, struct favo_grant *grant, struct favo_err *err)
{
	struct raw_grant raw;
	struct favo_grant g = {0};
	int ret;

	ret = split_text(text, &raw, err);
	if (ret < 0)
		return ret;
	ret = parse_payload(&raw, &g, err);
	if (ret < 0)
		return ret;
	*grant = g;
	return 0;
}

int favo_grant_verify(const struct favo_grant_key *key, const char *text, int64_t now,
		      struct favo_grant *grant, struct favo_err *err)
{
	automd EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	struct raw_grant raw;
	struct favo_grant g = {0};
	int ret;

	if (!ctx)
		return favo_fail(err, ENOMEM, "grant: %m");
	ret = split_text(text, &raw, err);
	if (ret < 0)
		return ret;
	/* The signature comes before the JSON parser: it meets favod's text only. */
	if (EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->pkey) != 1)
		return favo_fail(err, EIO, "grant: libcrypto refuses the key");
	if (EVP_DigestVerify(ctx, raw.sig, SIGNATURE_SIZE, raw.json, raw.json_len) != 1)
		return favo_fail(err, EKEYREJECTED,
				 "grant is not signed by this site's favod");
	ret = parse_payload(&raw, &g, err);
	if (ret < 0)
		return ret;
	if (g.issued > now + CLOCK_SLACK_S)
		return favo_fail(err, EKEYEXPIRED,
				 "grant is valid in %" PRId64
				 " s only: the clocks of favod and this node differ",
				 g.issued - now);
	if (g.expires <= now)
		return favo_fail(err, EKEYEXPIRED, "grant ended %" PRId64 " s ago",
				 now - g.expires);
	*grant = g;
	return 0;
}

int favo_grant_sign(const struct favo_grant_key *key, const struct favo_grant *grant,
		    char **text, struct favo_err *err)
{
	automd EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	autojson json_t *obj = NULL;
	favo_autofree char *json = NULL;
	favo_autofree char *out = NULL;
	unsigned char sig[SIGNATURE_SIZE];
	size_t sig_len = sizeof(sig), len;
	char *p;
	int ret;

	ret = check_fields(grant, err);
	if (ret < 0)
		return ret;
	obj = to_json(grant);
	json = obj ? json_dumps(obj, CANONICAL) : NULL;
	if (!json || !ctx)
		return favo_fail(err, ENOMEM, "grant: %m");
	len = strlen(json);
	if (EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) != 1 ||
	    EVP_DigestSign(ctx, sig, &sig_len, (const unsigned char *)json, len) != 1 ||
	    sig_len != SIGNATURE_SIZE)
		return favo_fail(err, EIO, "grant: libcrypto cannot sign with this key");
	out = malloc((len + 2) / 3 * 4 + 1 + 88 + 1);
	if (!out)
		return favo_fail(err, ENOMEM, "grant: %m");
	p = b64_encode(out, (const unsigned char *)json, len);
	*p++ = '.';
	p = b64_encode(p, sig, sig_len);
	if ((size_t)(p - out) > FAVO_GRANT_TEXT_MAX)
		return favo_fail(err, EINVAL, "grant: its text would be too long");
	*text = favo_steal_ptr(&out);
	return 0;
}

void favo_grant_key_free(struct favo_grant_key *key)
{
	if (!key)
		return;
	EVP_PKEY_free(key->pkey);
	free(key);
}

static int wrap_key(struct favo_grant_key **out, EVP_PKEY *pkey, const char *path,
		    struct favo_err *err)
{
	struct favo_grant_key *key;

	if (!pkey || EVP_PKEY_get_base_id(pkey) != EVP_PKEY_ED25519) {
		EVP_PKEY_free(pkey);
		return favo_fail(err, EINVAL, "%s is not an Ed25519 key in PEM form",
				 path);
	}
	key = calloc(1, sizeof(*key));
	if (!key) {
		EVP_PKEY_free(pkey);
		return favo_fail(err, ENOMEM, "key %s: %m", path);
	}
	key->pkey = pkey;
	*out = key;
	return 0;
}

/* No pass phrase: without this callback libcrypto would ask the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

int favo_grant_key_load_private(struct favo_grant_key **out, const char *path,
				struct favo_err *err)
{
	favo_autofclose FILE *f = fopen(path, "re");
	struct stat st;

	if (!f)
		return favo_fail(err, errno, "grant key %s: %m", path);
	if (fstat(fileno(f), &st) < 0)
		return favo_fail(err, errno, "grant key %s: %m", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return favo_fail(
			err, EPERM,
			"grant key %s is open to others (mode %04o): chmod 600 it", path,
			(unsigned int)(st.st_mode & 07777));
	return wrap_key(out, PEM_read_PrivateKey(f, NULL, no_passphrase, NULL), path,
			err);
}

int favo_grant_key_load_public(struct favo_grant_key **out, const char *path,
			       struct favo_err *err)
{
	favo_autofclose FILE *f = fopen(path, "re");

	if (!f)
		return favo_fail(err, errno, "grant key %s: %m", path);
	return wrap_key(out, PEM_read_PUBKEY(f, NULL, no_passphrase, NULL), path, err);
}

/*
 * Write one half beside its place and rename it there, so that no reader
 * ever sees a part of a key.
 */
static int write_pem(const char *path, EVP_PKEY *pkey, bool private_half,
		     struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s.new", path);
	favo_autoclose int fd = -1;
	FILE *f;
	int ok;

	if (!tmp)
		return favo_fail(err, ENOMEM, "key %s: %m", path);
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
		  private_half ? 0600 : 0644);
	if (fd < 0)
		return favo_fail(err, errno, "create %s: %m", tmp);
	/* the umask must not decide over a key */
	if (fchmod(fd, private_half ? 0600 : 0644) < 0)
		return favo_fail(err, errno, "chmod %s: %m", tmp);
	f = fdopen(fd, "w");
	if (!f)
		return favo_fail(err, errno, "open %s: %m", tmp);
	favo_steal_fd(&fd);
	if (private_half)
		ok = PEM_write_PKCS8PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL);
	else
		ok = PEM_write_PUBKEY(f, pkey);
	if (ok)
		ok = fflush(f) == 0 && fsync(fileno(f)) == 0;
	if (fclose(f) != 0 || !ok) {
		unlink(tmp);
		return favo_fail(err, EIO, "write %s", tmp);
	}
	if (rename(tmp, path) < 0)
		return favo_fail(err, errno, "rename %s: %m", tmp);
	return 0;
}

int favo_grant_key_init(const char *private_path, const char *public_path, bool *made,
			struct favo_err *err)
{
	struct favo_grant_key *key = NULL;
	autopkey EVP_PKEY *fresh = NULL;
	int ret;

	if (made)
		*made = false;
	if (access(private_path, F_OK) == 0) {
		if (access(public_path, F_OK) == 0)
			return 0;
		ret = favo_grant_key_load_private(&key, private_path, err);
		if (ret < 0)
			return ret;
		ret = write_pem(public_path, key->pkey, false, err);
		favo_grant_key_free(key);
		return ret;
	}
	fresh = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	if (!fresh)
		return favo_fail(err, EIO, "libcrypto cannot make an Ed25519 key");
	/* Public half first: a private key always has its public one beside it. */
	ret = write_pem(public_path, fresh, false, err);
	if (ret == 0)
		ret = write_pem(private_path, fresh, true, err);
	if (ret == 0 && made)
		*made = true;
	return ret;
}

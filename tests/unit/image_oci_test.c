// SPDX-License-Identifier: GPL-2.0-or-later
/* Container images: references, JSON, challenges of registries, credentials. */
#include "images/oci.h"

#include <errno.h>
#include <sys/stat.h>

#include "common/json.h"
#include "images/registry.h"
#include "tests/unit/images_util.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static void test_references(void **state)
{
	static const struct {
		const char *text, *user, *host, *repo, *tag;
		bool has_digest;
		const char *name;
	} cases[] = {
		{"debian", NULL, "docker.io", "library/debian", NULL, false, "debian"},
		{"debian:12", NULL, "docker.io", "library/debian", "12", false,
		 "debian:12"},
		{"a/b", NULL, "docker.io", "a/b", NULL, false, "b"},
		{"quay.io/a/b/c:v1.2_x", NULL, "quay.io", "a/b/c", "v1.2_x", false,
		 "c:v1.2_x"},
		{"localhost/a", NULL, "localhost", "a", NULL, false, "a"},
		{"localhost:5000/a:t", NULL, "localhost:5000", "a", "t", false, "a:t"},
		{"[::1]:5000/a", NULL, "[::1]:5000", "a", NULL, false, "a"},
		{"[::1]/a", NULL, "[::1]", "a", NULL, false, "a"},
		{"bob@quay.io/a:t", "bob", "quay.io", "a", "t", false, "a:t"},
		{"bob@x.org@quay.io/a", "bob@x.org", "quay.io", "a", NULL, false, "a"},
		{"a@" DIGEST, NULL, "docker.io", "library/a", NULL, true, "a"},
		{"bob@h.x:1/a/b:t@" DIGEST, "bob", "h.x:1", "a/b", "t", true, "b:t"},
		{"h.x/a__b/c-d/e--f.g", NULL, "h.x", "a__b/c-d/e--f.g", NULL, false,
		 "e--f.g"},
	};
	static const char *const bad[] = {
		"",	     "/a",	 "Debian",   "a:",	    "a:.b",
		"a@",	     "a@sha1:0", "h.x/",     "h.x/a//b",    "h.x/a/",
		"h.x/-a",    "h.x/a_",	 "h.x:0/a",  "h.x:99999/a", "h.x:y/a",
		"u:p@h.x/a", "@h.x/a",	 "h_.x/a",   "h.x/a b",	    "h.x/a?b",
		"h.x/../a",  "h.x/a#b",	 "h.x/a\nb", "[::1/a",	    "h.x/a._b",
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autofree char *text = favo_asprintf("docker://%s", cases[i].text);
		struct favo_oci_ref ref = {0};
		struct favo_err err = {0};
		favo_autofree char *name = NULL;

		assert_true(favo_oci_is_ref(text));
		assert_ok(favo_oci_ref_parse(&ref, text, &err), &err);
		assert_string_equal(ref.host, cases[i].host);
		assert_string_equal(ref.repo, cases[i].repo);
		assert_string_equal(ref.tag ? ref.tag : "-",
				    cases[i].tag ? cases[i].tag : "-");
		assert_string_equal(ref.user ? ref.user : "-",
				    cases[i].user ? cases[i].user : "-");
		assert_int_equal(ref.has_digest, cases[i].has_digest);
		name = favo_oci_ref_name(&ref);
		assert_string_equal(name, cases[i].name);
		favo_oci_ref_fini(&ref);
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		favo_autofree char *text = favo_asprintf("docker://%s", bad[i]);
		struct favo_oci_ref ref = {0};
		struct favo_err err = {0};

		if (favo_oci_ref_parse(&ref, text, &err) != -EINVAL)
			fail_msg("%s is taken", text);
		assert_true(err.msg[0]);
	}
	assert_false(favo_oci_is_ref("./oci:x"));
}

static void test_paths(void **state)
{
	char *dir = scratch_dir();
	favo_autofree char *with = favo_asprintf("%s/a:b", dir);
	favo_autofree char *whole = favo_asprintf("oci:%s/a:b", dir);
	favo_autofree char *tagged = favo_asprintf("docker-archive:%s/a:b:x/y:v1", dir);
	struct favo_oci_ref ref = {0};
	struct favo_err err = {0};
	favo_autofree char *name = NULL;

	(void)state;
	assert_int_equal(mkdir(with, 0700), 0);
	assert_ok(favo_oci_ref_parse(&ref, whole, &err), &err);
	assert_string_equal(ref.path, with);
	assert_null(ref.tag);
	favo_oci_ref_fini(&ref);
	assert_ok(favo_oci_ref_parse(&ref, tagged, &err), &err);
	assert_string_equal(ref.path, with);
	assert_string_equal(ref.tag, "x/y:v1");
	name = favo_oci_ref_name(&ref);
	assert_string_equal(name, "y:v1");
	favo_oci_ref_fini(&ref);
	assert_int_equal(favo_oci_ref_parse(&ref, "oci:", &err), -EINVAL);
	scratch_free(dir);
}

#define ENTRY(os, arch, digest)                                                          \
	"{\"digest\":\"" digest "\",\"size\":7,\"platform\":{\"os\":\"" os               \
	"\",\"architecture\":\"" arch "\"}}"
#define TAGGED(tag)                                                                      \
	"{\"digest\":\"" DIGEST                                                          \
	"\",\"size\":7,\"annotations\":{\"org.opencontainers.image.ref.name\":\"" tag    \
	"\"}}"
#define INDEX(entries) "{\"schemaVersion\":2,\"manifests\":[" entries "]}"
#define OTHER_DIGEST "sha256:ff" HEX

static void test_index(void **state)
{
	static const struct {
		const char *text, *tag;
		int code;
		const char *says;
	} cases[] = {
		{INDEX(ENTRY("linux", "arm64", "x") "," ENTRY("linux", "amd64", DIGEST)),
		 NULL, 0, NULL},
		{INDEX(ENTRY("linux", "arm64", DIGEST)), NULL, ENOENT, "linux/arm64"},
		{INDEX(ENTRY("windows", "amd64", DIGEST)), NULL, ENOENT, "windows/amd64"},
		{INDEX(""), NULL, ENOENT, "nothing"},
		{INDEX(TAGGED("v1")), NULL, 0, NULL},
		{INDEX(TAGGED("v1") "," TAGGED("v2")), "v2", 0, NULL},
		{INDEX(TAGGED("v1") "," TAGGED("v2")), NULL, EINVAL, "v1, v2"},
		{INDEX(TAGGED("v1")), "v3", ENOENT, "v1"},
		{INDEX("{\"digest\":\"sha512:00\",\"size\":7}"), NULL, ENOTSUP,
		 "SHA-256"},
		{INDEX("{\"digest\":\"" DIGEST "\",\"size\":-1}"), NULL, EBADMSG, ""},
		{INDEX("{\"digest\":\"sha256:../../x\",\"size\":1}"), NULL, EBADMSG, ""},
		{INDEX("7"), NULL, EBADMSG, ""},
		{"{\"manifests\":7}", NULL, EBADMSG, ""},
		{"[]", NULL, EBADMSG, ""},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct favo_oci_blob blob;
		struct favo_err err = {0};

		assert_int_equal(favo_oci_index_choose(&blob, cases[i].text,
						       strlen(cases[i].text),
						       cases[i].tag, &err),
				 -cases[i].code);
		if (cases[i].says && !strstr(err.msg, cases[i].says))
			fail_msg("'%s' does not say %s", err.msg, cases[i].says);
	}
}

#define BLOB(type, digest)                                                               \
	"{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":9}"
#define TAR_TYPE "application/vnd.oci.image.layer.v1.tar+gzip"
#define MANIFEST(config, layers)                                                         \
	"{\"schemaVersion\":2,\"config\":" config ",\"layers\":[" layers "]}"

static void test_manifests(void **state)
{
	static const struct {
		const char *text;
		int code;
	} cases[] = {
		{MANIFEST(BLOB("c", DIGEST),
			  BLOB(TAR_TYPE, DIGEST) "," BLOB(
				  "application/vnd.docker.image.rootfs.diff.tar.gzip",
				  DIGEST)),
		 0},
		{MANIFEST(BLOB("c", DIGEST), ""), 0},
		{MANIFEST(BLOB("c", DIGEST),
			  BLOB("application/vnd.cncf.helm.chart", DIGEST)),
		 ENOTSUP},
		{MANIFEST(BLOB("c", DIGEST), BLOB(TAR_TYPE "+encrypted", DIGEST)),
		 ENOTSUP},
		{MANIFEST(
			 BLOB("c", DIGEST),
			 BLOB("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
			      DIGEST)),
		 ENOTSUP},
		{MANIFEST("{}", ""), EBADMSG},
		{MANIFEST("7", ""), EBADMSG},
		{"{\"config\":" BLOB("c", DIGEST) "}", EBADMSG},
		{"{", EBADMSG},
	};
	struct favo_oci_manifest m;
	struct favo_err err = {0};
	bool index;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		int ret = favo_oci_manifest_parse(&m, cases[i].text,
						  strlen(cases[i].text), &err);

		assert_int_equal(ret, -cases[i].code);
		if (ret == 0)
			favo_oci_manifest_fini(&m);
	}
#define IS(text) favo_oci_is_index(&index, text, strlen(text), &err)
	assert_int_equal(IS(INDEX("")), 0);
	assert_true(index);
	assert_int_equal(IS(cases[0].text), 0);
	assert_false(index);
	assert_int_equal(IS("{\"schemaVersion\":1,\"fsLayers\":[]}"), -ENOTSUP);
	/* A document that two readers may take for two things. */
	assert_int_equal(IS("{\"manifests\":[],\"layers\":[]}"), -EBADMSG);
	assert_int_equal(IS("{}"), -EBADMSG);
}

#define SAVED(tag, layers)                                                               \
	"{\"Config\":\"c.json\",\"RepoTags\":[\"" tag "\"],\"Layers\":[" layers "]}"

static void test_docker_archive(void **state)
{
	const char *two =
		"[" SAVED("a/b:v1", "\"1/layer.tar\",\"2/layer.tar\"") "," SAVED(
			"c:latest", "") "]";
	struct favo_oci_manifest m;
	struct favo_err err = {0};

	(void)state;
	assert_ok(favo_oci_docker_parse(&m, two, strlen(two), "a/b:v1", &err), &err);
	assert_int_equal(m.n_layers, 2);
	assert_string_equal(m.layers[1].path, "2/layer.tar");
	assert_false(m.layers[1].has_digest);
	favo_oci_manifest_fini(&m);
	assert_ok(favo_oci_docker_parse(&m, two, strlen(two), "c", &err), &err);
	favo_oci_manifest_fini(&m);
	assert_int_equal(favo_oci_docker_parse(&m, two, strlen(two), NULL, &err),
			 -EINVAL);
	assert_int_equal(favo_oci_docker_parse(&m, two, strlen(two), "a", &err), -ENOENT);
	assert_int_equal(favo_oci_docker_parse(&m, "{}", 2, NULL, &err), -EBADMSG);
	assert_int_equal(favo_oci_docker_parse(&m, "[7]", 3, NULL, &err), -EBADMSG);
}

static int parse_config(const char *text, json_t **config, struct favo_err *err)
{
	favo_autofree struct favo_digest *ids = NULL;
	size_t n = 0;

	*config = NULL;
	return favo_oci_config_parse(&ids, &n, config, text, strlen(text), err);
}

#define CONFIG(config)                                                                   \
	"{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":" config                \
	",\"rootfs\":{\"diff_ids\":[\"" DIGEST "\"]}}"

static void test_config(void **state)
{
	static const char *const bad[] = {
		CONFIG("{\"Env\":7}"),
		CONFIG("{\"Env\":[7]}"),
		CONFIG("{\"Cmd\":{\"a\":\"b\"}}"),
		"{\"architecture\":\"arm64\",\"rootfs\":{\"diff_ids\":[]}}",
		"{\"os\":\"windows\",\"rootfs\":{\"diff_ids\":[]}}",
		"{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
		"{\"rootfs\":{}}",
		"{}",
		"",
	};
	json_t *config;
	struct favo_err err = {0};
	char *text;
	size_t len;

	(void)state;
	assert_ok(parse_config(
			  CONFIG("{\"Env\":[\"A=b\"],\"Entrypoint\":null,\"Cmd\":["
				 "\"sh\",\"-c\"],\"WorkingDir\":\"/x\",\"User\":\"u\"}"),
			  &config, &err),
		  &err);
	assert_ok(favo_json_canonical(&text, &len, config, &err), &err);
	assert_string_equal(text, "{\"cmd\":[\"sh\",\"-c\"],\"env\":[\"A=b\"],"
				  "\"workdir\":\"/x\"}");
	free(text);
	json_decref(config);
	assert_ok(parse_config(CONFIG("null"), &config, &err), &err);
	assert_int_equal(json_object_size(config), 0);
	json_decref(config);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		if (parse_config(bad[i], &config, &err) >= 0)
			fail_msg("%s is taken", bad[i]);
		assert_null(config);
	}
}

static void test_challenge(void **state)
{
	static const struct {
		const char *text;
		int code;
		bool bearer;
		const char *realm, *service, *scope;
	} cases[] = {
		{"Bearer realm=\"https://a/t\",service=\"s\",scope=\"r:x:pull,push\"", 0,
		 true, "https://a/t", "s", "r:x:pull,push"},
		{"bearer REALM=x", 0, true, "x", NULL, NULL},
		{"Basic realm=\"a \\\"b\\\", c\"", 0, false, "a \"b\", c", NULL, NULL},
		{"Basic", 0, false, NULL, NULL, NULL},
		{"Negotiate, Basic realm=x", 0, false, "x", NULL, NULL},
		{"Basic realm=x, Bearer realm=y , service = z", 0, true, "y", "z", NULL},
		{"Digest realm=x, nonce=\"1\"", ENOTSUP, false, NULL, NULL, NULL},
		{"", ENOTSUP, false, NULL, NULL, NULL},
		{"Bearer", EBADMSG, false, NULL, NULL, NULL},
		{"Bearer realm=", EBADMSG, false, NULL, NULL, NULL},
		{"Bearer realm=\"x", EBADMSG, false, NULL, NULL, NULL},
		{"Bearer =x", EBADMSG, false, NULL, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct favo_challenge c = {0};
		struct favo_err err = {0};
		int ret = favo_challenge_parse(&c, cases[i].text, &err);

		if (ret != -cases[i].code)
			fail_msg("%s: %d", cases[i].text, ret);
		assert_int_equal(c.bearer, cases[i].bearer);
		assert_string_equal(c.realm ? c.realm : "-",
				    cases[i].realm ? cases[i].realm : "-");
		assert_string_equal(c.service ? c.service : "-",
				    cases[i].service ? cases[i].service : "-");
		assert_string_equal(c.scope ? c.scope : "-",
				    cases[i].scope ? cases[i].scope : "-");
		favo_challenge_fini(&c);
	}
}

static void test_credentials(void **state)
{
	static const char netrc[] = "machine a.x login u password p\n"
				    "machine a.x:5000 login bob password b1\n"
				    "machine a.x:5000\n\tlogin eve\n\tpassword e:2\n";
	static const char docker[] =
		"{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"aHViOnB3\"},"
		"\"a.x:5000\":{\"auth\":\"Ym9iOmI6MQ==\"},\"bad.x\":{\"auth\":\"!\"}}}";
	static const struct {
		bool netrc;
		const char *host, *user, *found_user, *password;
	} cases[] = {
		{true, "a.x", NULL, "u", "p"},
		{true, "a.x:5000", NULL, "bob", "b1"},
		{true, "a.x:5000", "eve", "eve", "e:2"},
		{true, "a.x", "eve", NULL, NULL},
		{true, "b.x", NULL, NULL, NULL},
		{false, "docker.io", NULL, "hub", "pw"},
		{false, "a.x:5000", "bob", "bob", "b:1"},
		{false, "a.x:5000", "eve", NULL, NULL},
		{false, "a.x", NULL, NULL, NULL},
		{false, "bad.x", NULL, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct favo_credentials c = {0};
		struct favo_err err = {0};
		char text[sizeof(netrc)];
		int ret;

		memcpy(text, netrc, sizeof(netrc));
		ret = cases[i].netrc ? favo_credentials_netrc(&c, text, cases[i].host,
							      cases[i].user)
				     : favo_credentials_docker(&c, docker, strlen(docker),
							       cases[i].host,
							       cases[i].user, &err);
		assert_int_equal(ret, cases[i].found_user ? 0 : -ENOENT);
		if (ret == 0) {
			assert_string_equal(c.user, cases[i].found_user);
			assert_string_equal(c.password, cases[i].password);
		}
		favo_credentials_fini(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),     cmocka_unit_test(test_paths),
		cmocka_unit_test(test_index),	       cmocka_unit_test(test_manifests),
		cmocka_unit_test(test_docker_archive), cmocka_unit_test(test_config),
		cmocka_unit_test(test_challenge),      cmocka_unit_test(test_credentials),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * JSON of container images: index, manifest and configuration of the OCI
 * image-spec, the same of Docker (schema 2), and manifest.json of "docker
 * save". All of it is foreign; see oci.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"
#include "images/manifest.h"
#include "images/oci.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define LIST_MAX 160 /* bytes of names in a sentence */
#define WORDS_MAX 1000 /* entries of Env, Cmd, Entrypoint */
#define WORDS_BYTES_MAX (128u << 10)

static const char *str(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* A file name from "docker save": below the archive's root, whatever it says. */
static int parse_path(char **out, const json_t *path, struct favo_err *err)
{
	const char *text = json_string_value(path);

	if (!text || !text[0] || strlen(text) >= 4096)
		return favo_fail(err, EBADMSG, "malformed path of a layer");
	*out = strdup(text);
	return *out ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int parse_descriptor(struct favo_oci_blob *out, const json_t *object,
			    struct favo_err *err)
{
	const char *digest;
	int ret;

	if (!json_is_object(object))
		return favo_fail(err, EBADMSG, "descriptor is no object");
	digest = str(object, "digest");
	/* Nobody uses it, but the specification has it. */
	if (strncmp(digest, "sha512:", 7) == 0)
		return favo_fail(err, ENOTSUP, "digest %.20s... is not SHA-256", digest);
	ret = favo_digest_parse(&out->digest, digest, err);
	if (ret == 0)
		ret = favo_json_u64(&out->size, object, "size", 0, FAVO_ROOT_MAX, err);
	if (ret < 0)
		return favo_wrap(err, -EBADMSG, "descriptor");
	out->has_digest = true;
	return 0;
}

static int parse(json_t **out, const char *text, size_t len, const char *what,
		 struct favo_err *err)
{
	if (len > FAVO_OCI_JSON_MAX)
		return favo_fail(err, EBADMSG, "%s: larger than %u MiB", what,
				 FAVO_OCI_JSON_MAX >> 20);
	if (favo_json_parse(out, text, len, err) < 0)
		return favo_wrap(err, -EBADMSG, "%s", what);
	return 0;
}

int favo_oci_is_index(bool *index, const char *text, size_t len, struct favo_err *err)
{
	favo_autojson json_t *root = NULL;
	int ret = parse(&root, text, len, "manifest", err);

	if (ret < 0)
		return ret;
	if (json_integer_value(json_object_get(root, "schemaVersion")) == 1)
		return favo_fail(err, ENOTSUP,
				 "manifest of schema 1, which was given up in 2017; push "
				 "the image again with a newer tool");
	/* One document must not mean two things (image-spec, manifest.md). */
	if (!json_object_get(root, "manifests") == !json_object_get(root, "layers"))
		return favo_fail(err, EBADMSG, "neither an image manifest nor an index");
	*index = json_object_get(root, "manifests") != NULL;
	return 0;
}

/* ---- index ---- */

static bool fits_platform(const json_t *entry)
{
	const json_t *platform = json_object_get(entry, "platform");

	/* Layouts made by tools for one image say nothing. */
	return !platform || (strcmp(str(platform, "os"), "linux") == 0 &&
			     strcmp(str(platform, "architecture"), "amd64") == 0);
}

static bool fits_tag(const json_t *entry, const char *tag)
{
	const char *name = str(json_object_get(entry, "annotations"), REF_NAME);

	return !tag || strcmp(name, tag) == 0;
}

static void append(char list[LIST_MAX], const char *text)
{
	size_t len = strlen(list);

	if (text[0] && !strstr(list, text))
		snprintf(list + len, LIST_MAX - len, "%s%.60s", len ? ", " : "", text);
}

static int no_choice(const json_t *entries, const char *tag, struct favo_err *err)
{
	char tags[LIST_MAX] = "", platforms[LIST_MAX] = "", platform[128];
	const json_t *entry;
	bool tag_found = !tag;
	size_t i;

	json_array_foreach(entries, i, entry)
	{
		const json_t *p = json_object_get(entry, "platform");

		append(tags, str(json_object_get(entry, "annotations"), REF_NAME));
		tag_found |= fits_tag(entry, tag);
		snprintf(platform, sizeof(platform), "%.30s/%.30s", str(p, "os"),
			 str(p, "architecture"));
		append(platforms, p ? platform : "");
	}
	if (!tag_found)
		return favo_fail(err, ENOENT, "no image is tagged %.100s; there %s %s",
				 tag, tags[0] ? "are" : "is", tags[0] ? tags : "no tag");
	return favo_fail(err, ENOENT, "no image for linux/amd64 among: %s",
			 platforms[0] ? platforms : "nothing");
}

int favo_oci_index_choose(struct favo_oci_blob *out, const char *text, size_t len,
			  const char *tag, struct favo_err *err)
{
	favo_autojson json_t *root = NULL;
	const json_t *entry, *chosen = NULL;
	json_t *entries;
	size_t i, n = 0;
	int ret = parse(&root, text, len, "index", err);

	if (ret < 0)
		return ret;
	if (favo_json_array(&entries, root, "manifests", err) < 0)
		return favo_wrap(err, -EBADMSG, "index");
	json_array_foreach(entries, i, entry)
	{
		if (!fits_tag(entry, tag) || !fits_platform(entry))
			continue;
		/* As other tools do: the first that fits. But a layout of several. */
		if (!chosen)
			chosen = entry;
		n += json_object_get(entry, "platform") == NULL;
	}
	if (!chosen)
		return no_choice(entries, tag, err);
	if (n > 1 && !tag) {
		char tags[LIST_MAX] = "";

		json_array_foreach(entries, i, entry) append(
			tags, str(json_object_get(entry, "annotations"), REF_NAME));
		return favo_fail(err, EINVAL, "several images; choose one by its tag: %s",
				 tags);
	}
	*out = (struct favo_oci_blob){0};
	ret = parse_descriptor(out, chosen, err);
	return ret < 0 ? favo_wrap(err, ret, "index") : 0;
}

/* ---- manifest ---- */

void favo_oci_manifest_fini(struct favo_oci_manifest *manifest)
{
	for (size_t i = 0; i < manifest->n_layers; i++)
		free(manifest->layers[i].path);
	free(manifest->layers);
	free(manifest->config.path);
	*manifest = (struct favo_oci_manifest){0};
}

static int new_layers(struct favo_oci_manifest *m, const json_t *layers,
		      struct favo_err *err)
{
	size_t n = json_array_size(layers);

	if (n > FAVO_OCI_LAYERS_MAX)
		return favo_fail(err, EBADMSG, "more than %d layers",
				 FAVO_OCI_LAYERS_MAX);
	m->layers = calloc(n ? n : 1, sizeof(*m->layers));
	if (!m->layers)
		return favo_fail(err, ENOMEM, "out of memory");
	m->n_layers = n;
	return 0;
}

static int check_layer_type(const json_t *layer, struct favo_err *err)
{
	const char *type = str(layer, "mediaType");

	if (strstr(type, "+encrypted"))
		return favo_fail(err, ENOTSUP, "encrypted layers are not supported");
	if (strstr(type, "foreign") || json_object_get(layer, "urls"))
		return favo_fail(err, ENOTSUP,
				 "the layer is kept elsewhere (a foreign layer)");
	/* A chart or a policy is an "image" too. */
	if (type[0] && !strstr(type, ".tar") && !strstr(type, "layer.v1"))
		return favo_fail(err, ENOTSUP,
				 "%.80s: an artifact and no container image", type);
	return 0;
}

static int parse_layers(struct favo_oci_manifest *m, const json_t *root,
			struct favo_err *err)
{
	const json_t *layer;
	json_t *layers;
	size_t i;
	int ret = favo_json_array(&layers, root, "layers", err);

	if (ret < 0)
		return favo_wrap(err, -EBADMSG, "manifest");
	ret = new_layers(m, layers, err);
	json_array_foreach(layers, i, layer)
	{
		if (ret == 0)
			ret = check_layer_type(layer, err);
		if (ret == 0)
			ret = parse_descriptor(&m->layers[i], layer, err);
		if (ret < 0)
			return favo_wrap(err, ret, "layer %zu", i + 1);
	}
	return ret;
}

int favo_oci_manifest_parse(struct favo_oci_manifest *out, const char *text, size_t len,
			    struct favo_err *err)
{
	struct favo_oci_manifest m = {0};
	favo_autojson json_t *root = NULL;
	int ret = parse(&root, text, len, "manifest", err);

	if (ret < 0)
		return ret;
	ret = parse_descriptor(&m.config, json_object_get(root, "config"), err);
	if (ret == 0 && m.config.size > FAVO_OCI_JSON_MAX)
		ret = favo_fail(err, EBADMSG, "larger than %u MiB",
				FAVO_OCI_JSON_MAX >> 20);
	if (ret < 0)
		favo_wrap(err, ret, "manifest: config");
	else
		ret = parse_layers(&m, root, err);
	if (ret < 0)
		favo_oci_manifest_fini(&m);
	else
		*out = m;
	return ret;
}

/* "app:v1" of "docker.io/library/app:v1", as Docker itself shows it. */
static const char *familiar(const char *name)
{
	static const char *const prefixes[] = {"docker.io/", "library/"};

	for (size_t i = 0; name && i < FAVO_ARRAY_SIZE(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			name += strlen(prefixes[i]);
	return name;
}

static bool has_repo_tag(const json_t *image, const char *tag)
{
	const json_t *name;
	size_t i, len;

	json_array_foreach(json_object_get(image, "RepoTags"), i, name)
	{
		const char *text = familiar(json_string_value(name));

		tag = familiar(tag);
		len = strlen(tag);
		if (text && strncmp(text, tag, len) == 0 &&
		    (!text[len] || strcmp(text + len, ":latest") == 0))
			return true;
	}
	return false;
}

static int choose_saved(const json_t **out, const json_t *root, const char *tag,
			struct favo_err *err)
{
	char names[LIST_MAX] = "";
	const json_t *image, *name;
	size_t i, j;

	*out = NULL;
	if (!tag && json_array_size(root) == 1)
		*out = json_array_get(root, 0);
	json_array_foreach(root, i, image)
	{
		if (tag && !*out && has_repo_tag(image, tag))
			*out = image;
		json_array_foreach(json_object_get(image, "RepoTags"), j, name) append(
			names, json_string_value(name) ? json_string_value(name) : "");
	}
	if (*out)
		return 0;
	return favo_fail(err, tag ? ENOENT : EINVAL, "%s%.100s; there are: %s",
			 tag ? "no image " : "several images", tag ? tag : "",
			 names[0] ? names : "none with a name");
}

int favo_oci_docker_parse(struct favo_oci_manifest *out, const char *text, size_t len,
			  const char *tag, struct favo_err *err)
{
	struct favo_oci_manifest m = {0};
	favo_autojson json_t *root = NULL;
	const json_t *image, *layer;
	json_error_t why;
	size_t i;
	int ret;

	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_array(root))
		return favo_fail(err, EBADMSG, "manifest.json: %s",
				 root ? "not an array" : why.text);
	ret = choose_saved(&image, root, tag, err);
	if (ret == 0)
		ret = parse_path(&m.config.path, json_object_get(image, "Config"), err);
	if (ret == 0)
		ret = new_layers(&m, json_object_get(image, "Layers"), err);
	if (ret == 0)
		json_array_foreach(json_object_get(image, "Layers"), i, layer)
		{
			ret = parse_path(&m.layers[i].path, layer, err);
			if (ret < 0)
				break;
		}
	if (ret < 0) {
		favo_oci_manifest_fini(&m);
		return favo_wrap(err, ret, "manifest.json");
	}
	*out = m;
	return 0;
}

/* ---- configuration ---- */

/* List of strings as it is; anything else is -EBADMSG. */
static int copy_words(json_t *to, const char *name, const json_t *words,
		      struct favo_err *err)
{
	const json_t *word;
	size_t i, bytes = 0;

	if (!words || json_is_null(words))
		return 0;
	json_array_foreach(words, i, word)
	{
		if (!json_is_string(word))
			return favo_fail(err, EBADMSG, "config: %s is no list of strings",
					 name);
		bytes += json_string_length(word) + 1;
	}
	if (!json_is_array(words))
		return favo_fail(err, EBADMSG, "config: %s is no list of strings", name);
	if (json_array_size(words) > WORDS_MAX || bytes > WORDS_BYTES_MAX)
		return favo_fail(err, EBADMSG, "config: %s is too long", name);
	if (json_array_size(words) &&
	    json_object_set_new(to, name, json_copy((json_t *)words)) < 0)
		return favo_fail(err, ENOMEM, "out of memory");
	return 0;
}

static int copy_config(json_t *to, const json_t *from, struct favo_err *err)
{
	const char *workdir = str(from, "WorkingDir");
	int ret;

	if ((ret = copy_words(to, "env", json_object_get(from, "Env"), err)) < 0 ||
	    (ret = copy_words(to, "entrypoint", json_object_get(from, "Entrypoint"),
			      err)) < 0 ||
	    (ret = copy_words(to, "cmd", json_object_get(from, "Cmd"), err)) < 0)
		return ret;
	if (strlen(workdir) >= 4096)
		return favo_fail(err, EBADMSG, "config: WorkingDir is too long");
	if (workdir[0] && json_object_set_new(to, "workdir", json_string(workdir)) < 0)
		return favo_fail(err, ENOMEM, "out of memory");
	return 0;
}

static int parse_diff_ids(struct favo_digest **out, size_t *n, const json_t *root,
			  struct favo_err *err)
{
	const json_t *list = json_object_get(json_object_get(root, "rootfs"), "diff_ids");
	favo_autofree struct favo_digest *ids = NULL;
	const json_t *text;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > FAVO_OCI_LAYERS_MAX)
		return favo_fail(err, EBADMSG,
				 "config: no list of at most %d layers (rootfs.diff_ids)",
				 FAVO_OCI_LAYERS_MAX);
	ids = calloc(json_array_size(list) + 1, sizeof(*ids));
	if (!ids)
		return favo_fail(err, ENOMEM, "out of memory");
	json_array_foreach(
		list, i,
		text) if (!json_is_string(text) ||
			  favo_digest_parse(&ids[i], json_string_value(text), err) <
				  0) return favo_wrap(err, -EBADMSG,
						      "config: diff_id of layer %zu",
						      i + 1);
	*n = json_array_size(list);
	*out = favo_steal_ptr(&ids);
	return 0;
}

int favo_oci_config_parse(struct favo_digest **diff_ids, size_t *n, json_t **config,
			  const char *text, size_t len, struct favo_err *err)
{
	favo_autojson json_t *root = NULL, *copy = json_object();
	const char *arch, *os;
	int ret = parse(&root, text, len, "config", err);

	if (ret < 0)
		return ret;
	arch = str(root, "architecture");
	os = str(root, "os");
	if ((arch[0] && strcmp(arch, "amd64") != 0) ||
	    (os[0] && strcmp(os, "linux") != 0))
		return favo_fail(err, ENOTSUP,
				 "the image is for %.30s/%.30s; Favo runs linux/amd64",
				 os, arch);
	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = copy_config(copy, json_object_get(root, "config"), err);
	if (ret == 0)
		ret = parse_diff_ids(diff_ids, n, root, err);
	if (ret == 0)
		*config = favo_steal_ptr(&copy);
	return ret;
}

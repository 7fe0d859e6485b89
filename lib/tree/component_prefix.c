/* SPDX-License-Identifier: MIT */
#include "tree/component_prefix.h"

#include "tree/loader_names.h"
#include "json/json_reader.h"

#include <stdio.h>
#include <string.h>

/* What follows a known prefix as part of it: nothing, "N." or "NAME.". */
enum tail { TAIL_NONE, TAIL_NUMBER, TAIL_NAME };

struct known_prefix {
    const char *prefix, *directory;
    enum tail tail;
    bool telling; /* no other kind of model has such names */
};

static const struct known_prefix single_file[] = {
    {"model.diffusion_model.", "transformer", TAIL_NONE, true},
    {"first_stage_model.", "vae", TAIL_NONE, true},
    {"cond_stage_model.", "text_encoder", TAIL_NONE, true},
    {"conditioner.embedders.", "text_encoder", TAIL_NUMBER, true},
    {"text_encoders.", "text_encoder", TAIL_NAME, false},
    {"vae.", "vae", TAIL_NONE, false},
    {"audio_vae.", "audio_vae", TAIL_NONE, false},
    {"vocoder.", "vocoder", TAIL_NONE, false},
    {"text_embedding_projection.", "text_embedding_projection", TAIL_NONE, false},
    {0},
};

/* Here the telling ones are denoisers. */
static const struct known_prefix pipeline[] = {
    {"transformer.", "transformer", TAIL_NONE, true},
    {"transformer_2.", "transformer_2", TAIL_NONE, true},
    {"unet.", "unet", TAIL_NONE, true},
    {"vae.", "vae", TAIL_NONE, false},
    {"video_vae.", "video_vae", TAIL_NONE, false},
    {"audio_vae.", "audio_vae", TAIL_NONE, false},
    {"vocoder.", "vocoder", TAIL_NONE, false},
    {"connectors.", "connectors", TAIL_NONE, false},
    {"text_encoder.", "text_encoder", TAIL_NONE, false},
    {"text_encoder_2.", "text_encoder_2", TAIL_NONE, false},
    {"text_encoder_3.", "text_encoder_3", TAIL_NONE, false},
    {"image_encoder.", "image_encoder", TAIL_NONE, false},
    {0},
};

/* Convolutional denoisers of the original Stable Diffusion have these, transformers do not. */
static const char unet_mark[] = "model.diffusion_model.input_blocks.";

static bool begins_with(const char *name, size_t length, const char *prefix)
{
    size_t prefix_length = strlen(prefix);
    return length >= prefix_length && memcmp(name, prefix, prefix_length) == 0;
}

/* Length of "N." or "NAME." at the start, 0 when there is none. */
static size_t tail_length(const char *name, size_t length, enum tail tail)
{
    static const char digits[] = "0123456789";
    static const char letters[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
    const char *allowed = tail == TAIL_NUMBER ? digits : letters;
    size_t most = tail == TAIL_NUMBER ? 2 : 64, at = 0;
    while (at < length && at < most && name[at] != '\0' && strchr(allowed, name[at]) != NULL)
        at++;
    return at > 0 && at < length && name[at] == '.' ? at + 1 : 0;
}

/* The table's entry for a name, and how much of the name is its prefix; NULL: none. */
static const struct known_prefix *find_known(const struct known_prefix *table, const char *name,
                                             size_t length, size_t *prefix_length)
{
    for (const struct known_prefix *known = table; known->prefix != NULL; known++) {
        size_t fixed = strlen(known->prefix), tail = 0;
        if (!begins_with(name, length, known->prefix))
            continue;
        if (known->tail != TAIL_NONE &&
            (tail = tail_length(name + fixed, length - fixed, known->tail)) == 0)
            continue;
        *prefix_length = fixed + tail;
        return known;
    }
    return NULL;
}

/* "text_encoder", "text_encoder_2" for embedder 1, "text_encoder_t5xxl". */
static void name_directory(const struct known_prefix *known, const char *prefix, size_t length,
                           char out[COMPONENT_PREFIX_CAPACITY])
{
    const char *tail = prefix + strlen(known->prefix);
    size_t tail_size = known->tail != TAIL_NONE ? length - strlen(known->prefix) - 1 : 0;
    unsigned number = 0;
    if (known->tail == TAIL_NUMBER) {
        for (size_t i = 0; i < tail_size; i++)
            number = number * 10 + (unsigned)(tail[i] - '0');
        if (number > 0)
            snprintf(out, COMPONENT_PREFIX_CAPACITY, "%s_%u", known->directory, number + 1);
    }
    if (known->tail == TAIL_NAME)
        snprintf(out, COMPONENT_PREFIX_CAPACITY, "%s_%.*s", known->directory, (int)tail_size, tail);
    else if (number == 0)
        snprintf(out, COMPONENT_PREFIX_CAPACITY, "%s", known->directory);
}

/* Adds the prefix unless it is there. False when there are too many. */
static bool add_prefix(struct component_prefixes *out, const struct known_prefix *known,
                       const char *name, size_t length)
{
    for (size_t i = 0; i < out->count; i++)
        if (out->items[i].length == length && memcmp(out->items[i].prefix, name, length) == 0)
            return true;
    if (out->count == COMPONENT_PREFIXES_MAX)
        return false;
    struct component_prefix *item = &out->items[out->count++];
    snprintf(item->prefix, sizeof item->prefix, "%.*s", (int)length, name);
    item->length = length;
    name_directory(known, name, length, item->directory);
    return true;
}

/* What the names of all tensors say. */
struct survey {
    bool telling, unet, too_many;
    size_t others; /* tensors without a known prefix */
};

static struct survey survey_names(const struct tensor_set *sets, size_t set_count,
                                  const struct known_prefix *table, struct component_prefixes *out)
{
    struct survey survey = {0};
    out->count = 0;
    for (size_t s = 0; s < set_count; s++) {
        for (size_t i = 0; i < sets[s].tensor_count && !survey.too_many; i++) {
            const struct tensor *tensor = &sets[s].tensors[i];
            size_t length = 0;
            const struct known_prefix *known =
                find_known(table, tensor->name, tensor->name_length, &length);
            if (known == NULL) {
                survey.others++;
                continue;
            }
            survey.telling = survey.telling || known->telling;
            survey.unet = survey.unet || begins_with(tensor->name, tensor->name_length, unet_mark);
            survey.too_many = !add_prefix(out, known, tensor->name, length);
        }
    }
    return survey;
}

static bool is_word(struct json_string string, const char *word)
{
    return string.length == strlen(word) && memcmp(string.bytes, word, string.length) == 0;
}

/* The text is a JSON object with the keys "transformer" and "vae". */
static bool is_pipeline_config(const char *json, size_t length)
{
    struct json_reader reader;
    struct json_string key;
    bool transformer = false, vae = false;
    int more = 0;
    json_reader_init(&reader, json, length);
    int result = json_enter_object(&reader);
    while (result == 0 && (more = json_next_key(&reader, &key)) > 0) {
        transformer = transformer || is_word(key, "transformer");
        vae = vae || is_word(key, "vae");
        result = json_skip_value(&reader);
    }
    if (result == 0 && more == 0)
        result = json_expect_end(&reader);
    json_reader_free(&reader);
    return result == 0 && more == 0 && transformer && vae;
}

static bool metadata_tells(const struct tensor_set *sets, size_t set_count)
{
    for (size_t s = 0; s < set_count; s++) {
        for (size_t i = 0; i < sets[s].metadata_count; i++) {
            const struct metadata_entry *entry = &sets[s].metadata[i];
            if (is_word((struct json_string){entry->key, entry->key_length}, "config"))
                return is_pipeline_config(entry->value, entry->value_length);
        }
    }
    return false;
}

static void rename_unet(struct component_prefixes *prefixes)
{
    for (size_t i = 0; i < prefixes->count; i++)
        if (strcmp(prefixes->items[i].prefix, "model.diffusion_model.") == 0)
            snprintf(prefixes->items[i].directory, sizeof prefixes->items[i].directory, "unet");
}

bool component_prefixes_recognise(const struct tensor_set *sets, size_t set_count,
                                  struct component_prefixes *out)
{
    struct survey survey = survey_names(sets, set_count, single_file, out);
    if (survey.unet)
        rename_unet(out);
    if (out->count >= 2 && !survey.too_many && (survey.telling || metadata_tells(sets, set_count)))
        return true;
    survey = survey_names(sets, set_count, pipeline, out);
    if (out->count >= 2 && survey.telling && survey.others == 0 && !survey.too_many)
        return true;
    out->count = 0;
    return false;
}

void component_prefix_directory(const char *prefix, char out[COMPONENT_PREFIX_CAPACITY])
{
    size_t length = strlen(prefix), found = 0;
    const struct known_prefix *known = find_known(single_file, prefix, length, &found);
    if (known != NULL && found == length) {
        name_directory(known, prefix, length, out);
        return;
    }
    for (size_t i = 0; i < length; i++)
        out[i] = (char)(prefix[i] == '.' ? '_' : prefix[i]);
    out[length > 0 ? length - 1 : 0] = '\0';
}

const char *component_prefix_file(const char *directory)
{
    static const char *const encoders[] = {"text_encoder", "image_encoder", "safety_checker"};
    for (size_t i = 0; i < sizeof encoders / sizeof encoders[0]; i++)
        if (strncmp(directory, encoders[i], strlen(encoders[i])) == 0)
            return LOADER_MODEL_FILE;
    return LOADER_DIFFUSION_FILE;
}

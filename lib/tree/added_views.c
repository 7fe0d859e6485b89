/* SPDX-License-Identifier: MIT
 *
 * A mount adds to what is on disk: files of PyTorch keep their names and bytes. Beside them their
 * tensors are shown as safetensors where every loader, by its own rule for files, then finds the
 * same tensors as on disk. The rules stand in formats/README.md 3.1.
 *
 * From these follows:
 *   1. Only .bin files of the names that have a counterpart (pytorch_model and
 *      diffusion_pytorch_model) get one. A .pt, .pth or .ckpt is loaded by its own name alone.
 *   2. Who takes *.safetensors before *.bin finds the same only if there was no *.safetensors, and
 *      all *.bin of the directory get a view: one that is no state dict, or is called otherwise,
 *      keeps the others as they are, too.
 *   3. The tensors must be those of the file: a dict within a dict is another thing to a loader.
 *   4. A single file stays listed: ComfyUI asks for its name, accelerate looks for it first and
 *      finds the same. Shards that are merged are not listed, as those of safetensors are not, and
 *      are opened by their names (use_safetensors=False); nobody who lists needs them, since
 *      *.safetensors come first, and npcache writes into the directory.
 *   5. Where the directory has no configuration, a single file is not a model of transformers or
 *      diffusers but, maybe, one of ComfyUI's: what is added can be opened by its name, and is not
 *      listed.
 *   6. A distributed checkpoint gets a view where no rule above would find anything.
 *
 * pickle=safetensors: the user knows his loader, so wherever it can be done.
 */
#include "tree/added_views.h"

#include "tree/loader_names.h"

#include <errno.h>
#include <string.h>

/* What can be said of the files of a candidate. */
enum verdict { GOOD, OTHER, DAMAGED };

struct directory_files {
    bool configured;      /* there is a configuration */
    const char *first;    /* one with the first extension of loader_names.h, or NULL */
    const char *weights;  /* one that any loader might take for weights, or NULL */
    const char *stranger; /* one with the second extension that no candidate holds, or NULL */
    const char *refused;  /* one of a candidate that is not shown as something else, or NULL */
};

static struct directory_files look_around(const struct discovery *discovery, uint32_t directory)
{
    struct directory_files files = {0};
    const struct scan_entry *parent = &discovery->scan.entries[directory];
    for (uint32_t i = 0; i < parent->child_count; i++) {
        const struct scan_entry *entry = &discovery->scan.entries[parent->first_child + i];
        if (entry->kind == SCAN_DIRECTORY || entry->name[0] == '.' ||
            loader_name_is_of_training(entry->name))
            continue;
        if (loader_name_is_configuration(entry->name))
            files.configured = true;
        if (loader_name_may_be_weights(entry->name))
            files.weights = entry->path;
        if (loader_name_has_extension(entry->name, LOADER_FIRST_EXTENSION))
            files.first = entry->path;
        if (loader_name_has_extension(entry->name, LOADER_SECOND_EXTENSION) && !entry->claimed)
            files.stranger = entry->path;
    }
    return files;
}

/* What its files are. strict: only a dict of tensors as it stands is good; *culprit: the header of
 * the one that is not. */
static enum verdict judge(const struct candidate *candidate, bool strict,
                          const struct header **culprit)
{
    *culprit = NULL;
    if (candidate->failed)
        return candidate->error.errno_value == ENOTSUP ? OTHER : DAMAGED;
    for (uint32_t i = 0; i < candidate->member_count; i++) {
        const struct header *header = &candidate->headers[i];
        if (header->result != 0 && !header->truncated)
            return DAMAGED;
        if (strict && *culprit == NULL && header->set.note != NULL)
            *culprit = header;
    }
    return *culprit != NULL ? OTHER : GOOD;
}

/* Something on disk has the name that the view would have. */
static bool name_is_taken(struct discovery *discovery, const struct candidate *candidate)
{
    return scan_child(&discovery->scan, candidate->directory, candidate->merged_name,
                      strlen(candidate->merged_name)) != SCAN_NONE;
}

static bool is_distributed(const struct candidate *candidate)
{
    return candidate->format->described != NULL;
}

/* Why nothing is to be added for a candidate whose files are good; NULL: it is. *by: the file that
 * stands against it. */
static const char *objection(struct discovery *discovery, const struct candidate *candidate,
                             const struct directory_files *around, const char **by)
{
    *by = candidate->merged_name;
    if (name_is_taken(discovery, candidate))
        return "there is a file of this name already";
    if (discovery->checkpoint->options.pickle != UNSHARD_PICKLE_AUTO)
        return NULL;
    if (is_distributed(candidate)) {
        *by = around->weights;
        return *by != NULL ? "loaders take it for the weights" : NULL;
    }
    *by = around->first;
    if (*by != NULL)
        return "loaders take it rather than PyTorch files";
    *by = around->stranger;
    if (*by != NULL)
        return "loaders would not find it beside safetensors files";
    *by = around->refused;
    return *by != NULL ? "loaders would find only a part of the weights" : NULL;
}

static void release(struct discovery *discovery, struct candidate *candidate)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        discovery->scan.entries[candidate->members[i]].claimed = false;
}

/* The path of one file of the candidate, for messages. */
static const char *path_of(const struct discovery *discovery, const struct candidate *candidate)
{
    uint32_t entry = candidate->member_count > 0 ? candidate->members[0] : candidate->directory;
    return discovery->scan.entries[entry].path;
}

static void note_other(struct discovery *discovery, const struct candidate *candidate,
                       const struct header *culprit)
{
    struct arena *arena = &discovery->checkpoint->arena;
    if (culprit != NULL)
        note_add(&discovery->notes, arena, "%s: %s; it is shown as it is on disk.",
                 discovery->checkpoint->files[culprit->file].path, culprit->set.note);
    else
        note_add(&discovery->notes, arena, "%s; it is shown as it is on disk.",
                 candidate->error.message);
}

/* Whether the candidate stays. */
static bool settle(struct discovery *discovery, struct candidate *candidate,
                   const struct directory_files *around)
{
    bool strict = discovery->checkpoint->options.pickle == UNSHARD_PICKLE_AUTO;
    const struct header *culprit;
    const char *by;
    enum verdict verdict = judge(candidate, strict, &culprit);
    if (verdict == OTHER)
        note_other(discovery, candidate, culprit);
    if (verdict != GOOD)
        return verdict == DAMAGED;
    const char *why = objection(discovery, candidate, around, &by);
    if (why != NULL) {
        note_add(&discovery->notes, &discovery->checkpoint->arena,
                 "%s is shown as it is, without a %s beside it, since there is %s: %s.",
                 path_of(discovery, candidate), candidate->merged_name, by, why);
        return false;
    }
    candidate->unlisted_view = strict && !around->configured && !is_distributed(candidate) &&
                               candidate->member_count == 1 && candidate->index_entry == SCAN_NONE;
    return true;
}

/* Those of one directory, from `first` to before `end`, know of each other. */
static void settle_directory(struct discovery *discovery, uint32_t first, uint32_t end,
                             uint32_t *kept)
{
    struct directory_files around = look_around(discovery, discovery->candidates[first]->directory);
    for (uint32_t i = first; i < end; i++) {
        const struct candidate *candidate = discovery->candidates[i];
        const struct header *culprit;
        if (candidate->format->shown_as != NULL && judge(candidate, true, &culprit) != GOOD)
            around.refused = path_of(discovery, candidate);
    }
    for (uint32_t i = first; i < end; i++) {
        struct candidate *candidate = discovery->candidates[i];
        if (candidate->format->shown_as == NULL || settle(discovery, candidate, &around)) {
            discovery->candidates[(*kept)++] = candidate;
        } else {
            release(discovery, candidate);
            candidate_free(candidate);
        }
    }
}

void added_views_settle(struct discovery *discovery)
{
    uint32_t kept = 0, end;
    for (uint32_t first = 0; first < discovery->candidate_count; first = end) {
        end = first + 1;
        while (end < discovery->candidate_count &&
               discovery->candidates[end]->directory == discovery->candidates[first]->directory)
            end++;
        settle_directory(discovery, first, end, &kept);
    }
    discovery->candidate_count = kept;
}

/* SPDX-License-Identifier: MIT */
#include "tree/loader_names.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

bool loader_name_is_stem(const char *stem)
{
    static const char *const stems[] = {"model",         "diffusion_pytorch_model",
                                        "pytorch_model", "consolidated",
                                        "adapter_model", "pytorch_lora_weights"};
    return is_one_of(stem, stems, COUNT(stems));
}

bool loader_name_rival(const char *stem, const char *variant, bool index, char *out,
                       size_t capacity)
{
    static const char *const stems[][2] = {{"model", "pytorch_model"},
                                           {"diffusion_pytorch_model", "diffusion_pytorch_model"}};
    static const char extension[] = LOADER_SECOND_EXTENSION;
    const char *dot = variant[0] != '\0' ? "." : "";
    for (size_t i = 0; i < COUNT(stems); i++) {
        if (strcmp(stem, stems[i][0]) != 0)
            continue;
        int length =
            index ? snprintf(out, capacity, "%s.%s.index%s%s.json", stems[i][1], extension, dot,
                             variant)
                  : snprintf(out, capacity, "%s%s%s.%s", stems[i][1], dot, variant, extension);
        return length > 0 && (size_t)length < capacity;
    }
    return false;
}

bool loader_name_has_extension(const char *name, const char *extension)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL && dot > name && strcmp(dot + 1, extension) == 0;
}

bool loader_name_may_be_weights(const char *name)
{
    static const char *const extensions[] = {LOADER_FIRST_EXTENSION,
                                             "sft",
                                             LOADER_SECOND_EXTENSION,
                                             "pt",
                                             "pth",
                                             "pt2",
                                             "ckpt",
                                             "pkl",
                                             "gguf"};
    for (size_t i = 0; i < COUNT(extensions); i++)
        if (loader_name_has_extension(name, extensions[i]))
            return true;
    return false;
}

/* By vLLM's list. */
bool loader_name_is_of_training(const char *name)
{
    static const char *const names[] = {"training_args.bin", "optimizer.bin", "optimizer.pt",
                                        "scheduler.pt", "scaler.pt"};
    return is_one_of(name, names, COUNT(names));
}

bool loader_name_is_configuration(const char *name)
{
    static const char ending[] = "_config.json";
    size_t length = strlen(name), tail = sizeof ending - 1;
    return strcmp(name, "config.json") == 0 ||
           (length > tail && strcmp(name + length - tail, ending) == 0);
}

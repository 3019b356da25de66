/* Compiles SPIR-V with the first Vulkan device that it finds, and prints what the driver says of each compute pipeline.
 *
 *   pipeline_stats [--text]
 *
 * It reads jobs from stdin, one after another: a line `NAME ENTRY BINDINGS IMMEDIATES BYTES`, then BYTES of SPIR-V. BINDINGS
 * are the numbers of set 0's storage buffers with commas between them, IMMEDIATES the bytes of push constants. It writes a line
 * of JSON for the device, then one for each job as soon as that is done. With --text a job's line also holds the driver's
 * intermediate texts, down to assembly where it tells.
 *
 * The device is opened with the features that wgpu asks for, and pipelines are built with the flags that wgpu sets, so that
 * drivers make the code that a run would get. Nothing is executed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

enum { MAX_BINDINGS = 16, MAX_EXECUTABLES = 8, MAX_STATISTICS = 96, MAX_TEXTS = 32, MAX_SHAPES = 64 };

/* SPIR-V's numbers for what a device may lack. */
enum { OP_CAPABILITY = 17, FLOAT16 = 9, INT64 = 11, COOPERATIVE_MATRIX = 6022 };

struct device {
    VkPhysicalDevice physical;
    VkDevice handle;
    int has_statistics, has_float16, has_int64, has_matrices;
    PFN_vkGetPipelineExecutablePropertiesKHR executables;
    PFN_vkGetPipelineExecutableStatisticsKHR statistics;
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR texts;
};

struct job {
    char name[256], entry[256], bindings[256];
    unsigned immediates;
    size_t bytes;
    uint32_t *code;
};

static void fail(const char *what, int code)
{
    fprintf(stderr, "pipeline_stats: %s (%d)\n", what, code);
    exit(2);
}

static void check(VkResult result, const char *what)
{
    if (result < 0) fail(what, result);
}

static void print_string(const char *text, size_t length)
{
    putchar('"');
    for (size_t i = 0; i < length && text[i]; i++) {
        unsigned char c = text[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c == '\n') fputs("\\n", stdout);
        else if (c < 32 || c > 126) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static double milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static int has_extension(VkPhysicalDevice device, const char *name)
{
    uint32_t count = 0;
    check(vkEnumerateDeviceExtensionProperties(device, NULL, &count, NULL), "the device tells no extensions");
    VkExtensionProperties *found = calloc(count, sizeof *found);
    check(vkEnumerateDeviceExtensionProperties(device, NULL, &count, found), "the device tells no extensions");
    int has = 0;
    for (uint32_t i = 0; i < count; i++) has |= !strcmp(found[i].extensionName, name);
    free(found);
    return has;
}

static const char *component(VkComponentTypeKHR type)
{
    switch (type) {
    case VK_COMPONENT_TYPE_FLOAT16_KHR: return "f16";
    case VK_COMPONENT_TYPE_FLOAT32_KHR: return "f32";
    default: return "other";
    }
}

static void print_device(VkInstance instance, const struct device *device)
{
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceDriverProperties driver = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, &sizes};
    VkPhysicalDeviceProperties2 properties = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &driver};
    vkGetPhysicalDeviceProperties2(device->physical, &properties);
    printf("{\"device\": ");
    print_string(properties.properties.deviceName, VK_MAX_PHYSICAL_DEVICE_NAME_SIZE);
    printf(", \"driver\": ");
    print_string(driver.driverName, VK_MAX_DRIVER_NAME_SIZE);
    printf(", \"version\": ");
    print_string(driver.driverInfo, VK_MAX_DRIVER_INFO_SIZE);
    printf(", \"subgroup\": [%u, %u], \"matrices\": [", sizes.minSubgroupSize, sizes.maxSubgroupSize);
    if (device->has_matrices) {
        PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
            (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
                instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
        VkCooperativeMatrixPropertiesKHR shapes[MAX_SHAPES] = {0};
        uint32_t count = MAX_SHAPES, printed = 0;
        for (int i = 0; i < MAX_SHAPES; i++) shapes[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
        check(get(device->physical, &count, shapes), "the device tells no sizes of matrices");
        for (uint32_t i = 0; i < count; i++) {
            const VkCooperativeMatrixPropertiesKHR *s = &shapes[i];
            if (s->AType != VK_COMPONENT_TYPE_FLOAT16_KHR || s->saturatingAccumulation) continue;
            printf("%s\"%ux%ux%u %s\"", printed++ ? ", " : "", s->MSize, s->NSize, s->KSize, component(s->ResultType));
        }
    }
    printf("]}\n");
    fflush(stdout);
}

static struct device open_device(VkInstance instance)
{
    struct device d = {0};
    uint32_t count = 1;
    VkResult listed = vkEnumeratePhysicalDevices(instance, &count, &d.physical);
    if (listed < 0 || !count) fail("the driver offers no device", listed);

    d.has_statistics = has_extension(d.physical, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
    d.has_matrices = has_extension(d.physical, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    int robust = has_extension(d.physical, VK_EXT_ROBUSTNESS_2_EXTENSION_NAME);

    /* What the device can do, then, of that, what wgpu turns on. */
    VkPhysicalDeviceRobustness2FeaturesEXT can_robust = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT};
    VkPhysicalDeviceVulkan13Features can13 = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, robust ? &can_robust : NULL};
    VkPhysicalDeviceVulkan12Features can12 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, &can13};
    VkPhysicalDeviceVulkan11Features can11 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, &can12};
    VkPhysicalDeviceFeatures2 can = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &can11};
    vkGetPhysicalDeviceFeatures2(d.physical, &can);
    d.has_float16 = can12.shaderFloat16 && can11.storageBuffer16BitAccess;
    d.has_int64 = can.features.shaderInt64;

    void *chain = NULL;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, chain, VK_TRUE};
    if (d.has_statistics) chain = &statistics;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, chain, VK_TRUE};
    if (d.has_matrices) chain = &matrices;
    VkPhysicalDeviceRobustness2FeaturesEXT robustness = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT, chain, can_robust.robustBufferAccess2};
    if (robust) chain = &robustness;
    VkPhysicalDeviceVulkan13Features want13 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, chain};
    want13.subgroupSizeControl = can13.subgroupSizeControl;
    VkPhysicalDeviceVulkan12Features want12 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, &want13};
    want12.shaderFloat16 = can12.shaderFloat16;
    want12.timelineSemaphore = can12.timelineSemaphore;
    want12.vulkanMemoryModel = can12.vulkanMemoryModel;
    VkPhysicalDeviceVulkan11Features want11 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, &want12};
    want11.storageBuffer16BitAccess = can11.storageBuffer16BitAccess;
    want11.uniformAndStorageBuffer16BitAccess = can11.uniformAndStorageBuffer16BitAccess;
    VkPhysicalDeviceFeatures2 want = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &want11};
    want.features.robustBufferAccess = can.features.robustBufferAccess;
    want.features.shaderInt64 = can.features.shaderInt64;

    const char *extensions[3];
    uint32_t enabled = 0;
    if (d.has_statistics) extensions[enabled++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    if (d.has_matrices) extensions[enabled++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    if (robust) extensions[enabled++] = VK_EXT_ROBUSTNESS_2_EXTENSION_NAME;
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    VkDeviceCreateInfo create = {
        VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        &want,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = enabled,
        .ppEnabledExtensionNames = extensions,
    };
    check(vkCreateDevice(d.physical, &create, NULL, &d.handle), "the device does not open");

#define LOAD(name) (PFN_##name) vkGetDeviceProcAddr(d.handle, #name)
    d.executables = LOAD(vkGetPipelineExecutablePropertiesKHR);
    d.statistics = LOAD(vkGetPipelineExecutableStatisticsKHR);
    d.texts = LOAD(vkGetPipelineExecutableInternalRepresentationsKHR);
#undef LOAD
    return d;
}

/* Why this device can't take the module at all, or NULL. */
static const char *lacks(const struct device *device, const struct job *job)
{
    size_t words = job->bytes / 4;
    for (size_t at = 5; at + 1 < words && job->code[at] >> 16; at += job->code[at] >> 16) {
        if ((job->code[at] & 0xffff) != OP_CAPABILITY) continue;
        uint32_t needed = job->code[at + 1];
        if (needed == FLOAT16 && !device->has_float16) return "f16";
        if (needed == INT64 && !device->has_int64) return "64-bit integers";
        if (needed == COOPERATIVE_MATRIX && !device->has_matrices) return "cooperative matrices";
    }
    return NULL;
}

static void print_statistics(const struct device *device, const VkPipelineExecutableInfoKHR *executable)
{
    VkPipelineExecutableStatisticKHR found[MAX_STATISTICS] = {0};
    uint32_t count = MAX_STATISTICS;
    for (int i = 0; i < MAX_STATISTICS; i++) found[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    check(device->statistics(device->handle, executable, &count, found), "a pipeline tells no statistics");
    for (uint32_t i = 0; i < count; i++) {
        if (i) printf(", ");
        print_string(found[i].name, VK_MAX_DESCRIPTION_SIZE);
        switch (found[i].format) {
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: printf(": %u", found[i].value.b32); break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: printf(": %lld", (long long)found[i].value.i64); break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
            printf(": %llu", (unsigned long long)found[i].value.u64);
            break;
        default: printf(": %g", found[i].value.f64);
        }
    }
}

static void print_texts(const struct device *device, const VkPipelineExecutableInfoKHR *executable)
{
    VkPipelineExecutableInternalRepresentationKHR found[MAX_TEXTS] = {0};
    uint32_t count = MAX_TEXTS;
    for (int i = 0; i < MAX_TEXTS; i++)
        found[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    check(device->texts(device->handle, executable, &count, found), "a pipeline tells no texts");
    for (uint32_t i = 0; i < count; i++) found[i].pData = calloc(1, found[i].dataSize + 1);
    check(device->texts(device->handle, executable, &count, found), "a pipeline tells no texts");
    for (uint32_t i = 0; i < count; i++) {
        if (i) printf(", ");
        print_string(found[i].name, VK_MAX_DESCRIPTION_SIZE);
        printf(": ");
        print_string(found[i].isText ? found[i].pData : "", found[i].dataSize);
        free(found[i].pData);
    }
}

static void print_executables(const struct device *device, VkPipeline pipeline, int text)
{
    VkPipelineInfoKHR info = {VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = pipeline};
    VkPipelineExecutablePropertiesKHR found[MAX_EXECUTABLES] = {0};
    uint32_t count = MAX_EXECUTABLES;
    for (int i = 0; i < MAX_EXECUTABLES; i++) found[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    check(device->executables(device->handle, &info, &count, found), "a pipeline tells no executables");
    for (uint32_t i = 0; i < count; i++) {
        VkPipelineExecutableInfoKHR executable = {
            VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline, .executableIndex = i};
        printf("%s{\"name\": ", i ? ", " : "");
        print_string(found[i].name, VK_MAX_DESCRIPTION_SIZE);
        printf(", \"subgroup\": %u, \"statistics\": {", found[i].subgroupSize);
        print_statistics(device, &executable);
        printf("}, \"texts\": {");
        if (text) print_texts(device, &executable);
        printf("}}");
    }
}

static VkPipelineLayout layout_of(const struct device *device, struct job *job, VkDescriptorSetLayout *set)
{
    VkDescriptorSetLayoutBinding bindings[MAX_BINDINGS];
    uint32_t count = 0;
    for (char *at = strtok(job->bindings, ","); at && count < MAX_BINDINGS; at = strtok(NULL, ","))
        bindings[count++] = (VkDescriptorSetLayoutBinding){
            (uint32_t)atoi(at), VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, NULL};
    VkDescriptorSetLayoutCreateInfo sets = {
        VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = count, .pBindings = bindings};
    check(vkCreateDescriptorSetLayout(device->handle, &sets, NULL, set), "no descriptor set layout");
    VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, job->immediates};
    VkPipelineLayoutCreateInfo create = {
        VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = set,
        .pushConstantRangeCount = job->immediates > 0,
        .pPushConstantRanges = &range,
    };
    VkPipelineLayout layout;
    check(vkCreatePipelineLayout(device->handle, &create, NULL, &layout), "no pipeline layout");
    return layout;
}

static void compile(const struct device *device, struct job *job, int text)
{
    printf("{\"name\": ");
    print_string(job->name, sizeof job->name);
    const char *missing = lacks(device, job);
    if (missing) {
        printf(", \"lacks\": \"%s\"}\n", missing);
        fflush(stdout);
        return;
    }
    VkDescriptorSetLayout set;
    VkPipelineLayout layout = layout_of(device, job, &set);
    VkShaderModuleCreateInfo code = {
        VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = job->bytes, .pCode = job->code};
    VkShaderModule module = VK_NULL_HANDLE;
    VkPipeline pipeline = VK_NULL_HANDLE;
    double start = milliseconds();
    VkResult result = vkCreateShaderModule(device->handle, &code, NULL, &module);
    VkPipelineCreateFlags flags = 0;
    if (device->has_statistics) flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    if (device->has_statistics && text) flags |= VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
    VkComputePipelineCreateInfo create = {
        VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = flags,
        .stage =
            {
                VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .flags = VK_PIPELINE_SHADER_STAGE_CREATE_ALLOW_VARYING_SUBGROUP_SIZE_BIT,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = job->entry,
            },
        .layout = layout,
    };
    if (result == VK_SUCCESS)
        result = vkCreateComputePipelines(device->handle, VK_NULL_HANDLE, 1, &create, NULL, &pipeline);
    printf(", \"result\": %d, \"milliseconds\": %.1f, \"executables\": [", result, milliseconds() - start);
    if (result == VK_SUCCESS && device->has_statistics) print_executables(device, pipeline, text);
    printf("]}\n");
    fflush(stdout);
    vkDestroyPipeline(device->handle, pipeline, NULL);
    vkDestroyShaderModule(device->handle, module, NULL);
    vkDestroyPipelineLayout(device->handle, layout, NULL);
    vkDestroyDescriptorSetLayout(device->handle, set, NULL);
}

/* Whether there was a job to read; anything but a whole one is an error. */
static int read_job(struct job *job)
{
    char line[1024];
    if (!fgets(line, sizeof line, stdin)) return 0;
    if (sscanf(line, "%255s %255s %255s %u %zu", job->name, job->entry, job->bindings, &job->immediates, &job->bytes) != 5)
        fail("a job's line is not NAME ENTRY BINDINGS IMMEDIATES BYTES", 0);
    job->code = malloc(job->bytes);
    if (!job->code || fread(job->code, 1, job->bytes, stdin) != job->bytes) fail("a job's SPIR-V is cut off", 0);
    return 1;
}

int main(int argc, char **argv)
{
    int text = argc > 1 && !strcmp(argv[1], "--text");
    if (argc > 2 || (argc == 2 && !text)) {
        fprintf(stderr, "usage: pipeline_stats [--text]\n");
        return 2;
    }
    VkApplicationInfo application = {VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo create = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    VkInstance instance;
    check(vkCreateInstance(&create, NULL, &instance), "no Vulkan instance");
    struct device device = open_device(instance);
    print_device(instance, &device);
    struct job job;
    while (read_job(&job)) {
        compile(&device, &job, text);
        free(job.code);
    }
    fflush(stdout);
    _exit(0); /* drivers without a kernel behind them do not close well */
}

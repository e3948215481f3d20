//! The table itself: one row a field, by type.
//!
//! A type is listed if a field that is acted on leads to it; a test holds the table against the
//! schema. What is below a field that is ignored, warned of or refused shares its verdict.

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what Kubernetes says, or what is within it is judged by its own rows.
    Acted,
    /// Leaving it out changes nothing on a single host.
    Ignored,
    /// It has no effect, and somebody may count on it: named in a warning.
    Warned,
    /// Leaving it out would change the pod's meaning: an error.
    Refused,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// What is done with it.
    pub verdict: Verdict,
    /// Values that need nothing to be done; written as in YAML.
    pub fine: &'static [&'static str],
    /// Whether also `false` and what is empty mean something.
    pub any_value: bool,
    /// What is missing, for the message.
    pub why: &'static str,
}

/// The rows of a type.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// The name in Kubernetes' OpenAPI.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

const fn row(name: &'static str, verdict: Verdict, why: &'static str) -> Field {
    Field { name, verdict, fine: &[], any_value: false, why }
}

const fn acted(name: &'static str) -> Field {
    row(name, Verdict::Acted, "")
}

const fn ignored(name: &'static str) -> Field {
    row(name, Verdict::Ignored, "")
}

const fn warned(name: &'static str, why: &'static str) -> Field {
    row(name, Verdict::Warned, why)
}

const fn refused(name: &'static str, why: &'static str) -> Field {
    row(name, Verdict::Refused, why)
}

impl Field {
    const fn unless(self, fine: &'static [&'static str]) -> Field {
        Field { fine, ..self }
    }

    const fn any_value(self) -> Field {
        Field { any_value: true, ..self }
    }
}

const NO_SUCH_VOLUME: &str =
    "of volumes there are emptyDir, configMap, secret, downwardAPI, projected and hostPath";
const NO_OWNER: &str = "files of volumes belong to root";
const NO_TOKENS: &str = "nobody here issues tokens or certificates";
const NO_SELINUX: &str = "SELinux labels are not set";
const NO_WINDOWS: &str = "there are no Windows containers";
const ONE_NODE: &str = "there is only this host, and the pod runs on it";

/// Everything.
pub const TABLE: &[Type] = &[
    Type {
        name: "io.k8s.api.core.v1.Pod",
        fields: &[
            acted("apiVersion"),
            acted("kind"),
            acted("metadata"),
            acted("spec"),
            ignored("status"),
        ],
    },
    Type {
        name: "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        fields: &[
            acted("annotations"),
            ignored("creationTimestamp"),
            ignored("deletionGracePeriodSeconds"),
            ignored("deletionTimestamp"),
            ignored("finalizers"),
            acted("generateName"),
            ignored("generation"),
            acted("labels"),
            ignored("managedFields"),
            acted("name"),
            acted("namespace"),
            ignored("ownerReferences"),
            ignored("resourceVersion"),
            ignored("selfLink"),
            acted("uid"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.PodSpec",
        fields: &[
            acted("activeDeadlineSeconds"),
            warned("affinity", ONE_NODE),
            ignored("automountServiceAccountToken"),
            acted("containers"),
            acted("dnsConfig"),
            acted("dnsPolicy"),
            ignored("enableServiceLinks"),
            refused("ephemeralContainers", "they can only be added to a pod that runs"),
            ignored("evictionResponders"),
            acted("hostAliases"),
            refused("hostIPC", "pods have an IPC namespace of their own"),
            acted("hostNetwork"),
            refused("hostPID", "containers have a process namespace of their own"),
            refused("hostUsers", "pods have no user namespace of their own")
                .any_value()
                .unless(&["true"]),
            acted("hostname"),
            acted("hostnameOverride"),
            warned(
                "imagePullSecrets",
                "credentials are those of the host's docker or podman login",
            ),
            acted("initContainers"),
            ignored("nodeName"),
            warned("nodeSelector", ONE_NODE),
            acted("os"),
            warned("overhead", "limits are those of the containers"),
            ignored("preemptionPolicy"),
            ignored("priority"),
            ignored("priorityClassName"),
            acted("readinessGates"),
            refused("resourceClaims", "devices are not given to containers"),
            warned("resources", "limits are those of the containers"),
            acted("restartPolicy"),
            refused("runtimeClassName", "there is one runtime"),
            ignored("schedulerName"),
            refused("schedulingGates", "nobody here opens a gate, and the pod would start"),
            ignored("schedulingGroup"),
            acted("securityContext"),
            ignored("serviceAccount"),
            ignored("serviceAccountName"),
            acted("setHostnameAsFQDN"),
            refused("shareProcessNamespace", "containers have a process namespace of their own"),
            acted("subdomain"),
            acted("terminationGracePeriodSeconds"),
            ignored("tolerations"),
            ignored("topologySpreadConstraints"),
            acted("volumes"),
        ],
    },
    Type { name: "io.k8s.api.core.v1.PodReadinessGate", fields: &[acted("conditionType")] },
    Type {
        name: "io.k8s.api.core.v1.PodOS",
        fields: &[refused("name", "there are only Linux containers").unless(&["linux"])],
    },
    Type {
        name: "io.k8s.api.core.v1.Volume",
        fields: &[
            refused("awsElasticBlockStore", NO_SUCH_VOLUME).any_value(),
            refused("azureDisk", NO_SUCH_VOLUME).any_value(),
            refused("azureFile", NO_SUCH_VOLUME).any_value(),
            refused("cephfs", NO_SUCH_VOLUME).any_value(),
            refused("cinder", NO_SUCH_VOLUME).any_value(),
            acted("configMap"),
            refused("csi", NO_SUCH_VOLUME).any_value(),
            acted("downwardAPI"),
            acted("emptyDir"),
            refused("ephemeral", NO_SUCH_VOLUME).any_value(),
            refused("fc", NO_SUCH_VOLUME).any_value(),
            refused("flexVolume", NO_SUCH_VOLUME).any_value(),
            refused("flocker", NO_SUCH_VOLUME).any_value(),
            refused("gcePersistentDisk", NO_SUCH_VOLUME).any_value(),
            refused("gitRepo", NO_SUCH_VOLUME).any_value(),
            refused("glusterfs", NO_SUCH_VOLUME).any_value(),
            acted("hostPath"),
            refused("image", NO_SUCH_VOLUME).any_value(),
            refused("iscsi", NO_SUCH_VOLUME).any_value(),
            acted("name"),
            refused("nfs", NO_SUCH_VOLUME).any_value(),
            refused("persistentVolumeClaim", NO_SUCH_VOLUME).any_value(),
            refused("photonPersistentDisk", NO_SUCH_VOLUME).any_value(),
            refused("portworxVolume", NO_SUCH_VOLUME).any_value(),
            acted("projected"),
            refused("quobyte", NO_SUCH_VOLUME).any_value(),
            refused("rbd", NO_SUCH_VOLUME).any_value(),
            refused("scaleIO", NO_SUCH_VOLUME).any_value(),
            acted("secret"),
            refused("storageos", NO_SUCH_VOLUME).any_value(),
            refused("vsphereVolume", NO_SUCH_VOLUME).any_value(),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.ConfigMapVolumeSource",
        fields: &[
            acted("defaultMode"),
            refused("defaultUser", NO_OWNER),
            acted("items"),
            acted("name"),
            acted("optional"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.SecretVolumeSource",
        fields: &[
            acted("defaultMode"),
            refused("defaultUser", NO_OWNER),
            acted("items"),
            acted("optional"),
            acted("secretName"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.DownwardAPIVolumeSource",
        fields: &[acted("defaultMode"), refused("defaultUser", NO_OWNER), acted("items")],
    },
    Type {
        name: "io.k8s.api.core.v1.DownwardAPIVolumeFile",
        fields: &[
            acted("fieldRef"),
            acted("mode"),
            acted("path"),
            acted("resourceFieldRef"),
            refused("user", NO_OWNER),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.ProjectedVolumeSource",
        fields: &[acted("defaultMode"), refused("defaultUser", NO_OWNER), acted("sources")],
    },
    Type {
        name: "io.k8s.api.core.v1.VolumeProjection",
        fields: &[
            refused("clusterTrustBundle", NO_TOKENS).any_value(),
            acted("configMap"),
            acted("downwardAPI"),
            refused("podCertificate", NO_TOKENS).any_value(),
            acted("secret"),
            refused("serviceAccountToken", NO_TOKENS).any_value(),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.ConfigMapProjection",
        fields: &[acted("items"), acted("name"), acted("optional")],
    },
    Type {
        name: "io.k8s.api.core.v1.SecretProjection",
        fields: &[acted("items"), acted("name"), acted("optional")],
    },
    Type { name: "io.k8s.api.core.v1.DownwardAPIProjection", fields: &[acted("items")] },
    Type {
        name: "io.k8s.api.core.v1.KeyToPath",
        fields: &[acted("key"), acted("mode"), acted("path"), refused("user", NO_OWNER)],
    },
    Type {
        name: "io.k8s.api.core.v1.HostPathVolumeSource",
        fields: &[acted("path"), acted("type")],
    },
    Type {
        name: "io.k8s.api.core.v1.EmptyDirVolumeSource",
        fields: &[
            refused("medium", "an emptyDir is on disk or, with `Memory`, a tmpfs")
                .unless(&["Memory"]),
            acted("mode"),
            acted("sizeLimit"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.Container",
        fields: &[
            acted("args"),
            acted("command"),
            acted("env"),
            acted("envFrom"),
            acted("image"),
            acted("imagePullPolicy"),
            acted("lifecycle"),
            acted("livenessProbe"),
            acted("name"),
            acted("ports"),
            acted("readinessProbe"),
            acted("resizePolicy"),
            acted("resources"),
            acted("restartPolicy"),
            acted("restartPolicyRules"),
            acted("securityContext"),
            acted("startupProbe"),
            warned("stdin", "containers have no standard input"),
            warned("stdinOnce", "containers have no standard input"),
            acted("terminationMessagePath"),
            acted("terminationMessagePolicy"),
            warned("tty", "containers have no terminal"),
            refused("volumeDevices", "block devices are not given to containers"),
            acted("volumeMounts"),
            acted("workingDir"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.ContainerPort",
        fields: &[
            acted("containerPort"),
            acted("hostIP"),
            acted("hostPort"),
            ignored("name"),
            acted("protocol"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.EnvVar",
        fields: &[acted("name"), acted("value"), acted("valueFrom")],
    },
    Type {
        name: "io.k8s.api.core.v1.EnvVarSource",
        fields: &[
            acted("configMapKeyRef"),
            acted("fieldRef"),
            refused("fileKeyRef", "files of volumes are not read for variables").any_value(),
            acted("resourceFieldRef"),
            acted("secretKeyRef"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.EnvFromSource",
        fields: &[acted("configMapRef"), acted("prefix"), acted("secretRef")],
    },
    Type {
        name: "io.k8s.api.core.v1.ConfigMapEnvSource",
        fields: &[acted("name"), acted("optional")],
    },
    Type {
        name: "io.k8s.api.core.v1.SecretEnvSource",
        fields: &[acted("name"), acted("optional")],
    },
    Type {
        name: "io.k8s.api.core.v1.ConfigMapKeySelector",
        fields: &[acted("key"), acted("name"), acted("optional")],
    },
    Type {
        name: "io.k8s.api.core.v1.SecretKeySelector",
        fields: &[acted("key"), acted("name"), acted("optional")],
    },
    Type {
        name: "io.k8s.api.core.v1.ResourceFieldSelector",
        fields: &[acted("containerName"), acted("divisor"), acted("resource")],
    },
    Type {
        name: "io.k8s.api.core.v1.ConfigMap",
        fields: &[
            acted("apiVersion"),
            acted("binaryData"),
            acted("data"),
            ignored("immutable"),
            acted("kind"),
            acted("metadata"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.Secret",
        fields: &[
            acted("apiVersion"),
            acted("data"),
            ignored("immutable"),
            acted("kind"),
            acted("metadata"),
            acted("stringData"),
            acted("type"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.ObjectFieldSelector",
        fields: &[acted("apiVersion"), acted("fieldPath")],
    },
    Type {
        name: "io.k8s.api.core.v1.ResourceRequirements",
        fields: &[
            refused("claims", "devices are not given to containers"),
            acted("limits"),
            acted("requests"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.VolumeMount",
        fields: &[
            acted("bindMountOptions"),
            acted("mountPath"),
            refused("mountPropagation", "what a container mounts does not reach the host")
                .unless(&["None", "HostToContainer"]),
            acted("name"),
            acted("readOnly"),
            acted("recursiveReadOnly"),
            acted("subPath"),
            acted("subPathExpr"),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.Lifecycle",
        fields: &[acted("postStart"), acted("preStop"), acted("stopSignal")],
    },
    Type {
        name: "io.k8s.api.core.v1.LifecycleHandler",
        fields: &[acted("exec"), acted("httpGet"), acted("sleep"), acted("tcpSocket")],
    },
    Type {
        name: "io.k8s.api.core.v1.HTTPGetAction",
        fields: &[
            acted("host"),
            acted("httpHeaders"),
            acted("path"),
            acted("port"),
            refused("protocol", "requests are made in HTTP/1.1"),
            acted("scheme"),
        ],
    },
    Type { name: "io.k8s.api.core.v1.HTTPHeader", fields: &[acted("name"), acted("value")] },
    Type {
        name: "io.k8s.api.core.v1.GRPCAction",
        fields: &[
            refused("mode", "gRPC probes are made without TLS").unless(&["Plaintext"]),
            acted("port"),
            acted("service"),
        ],
    },
    Type { name: "io.k8s.api.core.v1.SleepAction", fields: &[acted("seconds")] },
    Type { name: "io.k8s.api.core.v1.TCPSocketAction", fields: &[acted("host"), acted("port")] },
    Type {
        name: "io.k8s.api.core.v1.ContainerResizePolicy",
        fields: &[acted("resourceName"), acted("restartPolicy")],
    },
    Type {
        name: "io.k8s.api.core.v1.ContainerRestartRule",
        fields: &[acted("action"), acted("exitCodes")],
    },
    Type {
        name: "io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes",
        fields: &[acted("operator"), acted("values")],
    },
    Type {
        name: "io.k8s.api.core.v1.Probe",
        fields: &[
            acted("exec"),
            acted("failureThreshold"),
            acted("grpc"),
            acted("httpGet"),
            acted("initialDelaySeconds"),
            acted("periodSeconds"),
            acted("successThreshold"),
            acted("tcpSocket"),
            acted("terminationGracePeriodSeconds"),
            acted("timeoutSeconds"),
        ],
    },
    Type { name: "io.k8s.api.core.v1.ExecAction", fields: &[acted("command")] },
    Type {
        name: "io.k8s.api.core.v1.SecurityContext",
        fields: &[
            acted("allowPrivilegeEscalation"),
            acted("appArmorProfile"),
            acted("capabilities"),
            acted("privileged"),
            refused("procMount", "/proc is always masked").unless(&["Default"]),
            acted("readOnlyRootFilesystem"),
            acted("runAsGroup"),
            acted("runAsNonRoot"),
            acted("runAsUser"),
            refused("seLinuxOptions", NO_SELINUX),
            acted("seccompProfile"),
            warned("windowsOptions", NO_WINDOWS),
        ],
    },
    Type { name: "io.k8s.api.core.v1.Sysctl", fields: &[acted("name"), acted("value")] },
    Type {
        name: "io.k8s.api.core.v1.PodDNSConfig",
        fields: &[acted("nameservers"), acted("options"), acted("searches")],
    },
    Type {
        name: "io.k8s.api.core.v1.PodDNSConfigOption",
        fields: &[acted("name"), acted("value")],
    },
    Type { name: "io.k8s.api.core.v1.HostAlias", fields: &[acted("hostnames"), acted("ip")] },
    Type { name: "io.k8s.api.core.v1.Capabilities", fields: &[acted("add"), acted("drop")] },
    Type {
        name: "io.k8s.api.core.v1.SeccompProfile",
        fields: &[acted("localhostProfile"), acted("type")],
    },
    Type {
        name: "io.k8s.api.core.v1.AppArmorProfile",
        fields: &[
            refused("localhostProfile", "AppArmor profiles are not loaded"),
            refused("type", "AppArmor profiles are not loaded")
                .unless(&["RuntimeDefault", "Unconfined"]),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.PodSecurityContext",
        fields: &[
            acted("appArmorProfile"),
            acted("fsGroup"),
            ignored("fsGroupChangePolicy"),
            acted("runAsGroup"),
            acted("runAsNonRoot"),
            acted("runAsUser"),
            ignored("seLinuxChangePolicy"),
            refused("seLinuxOptions", NO_SELINUX),
            acted("seccompProfile"),
            acted("supplementalGroups"),
            acted("supplementalGroupsPolicy"),
            acted("sysctls"),
            warned("windowsOptions", NO_WINDOWS),
        ],
    },
    Type {
        name: "io.k8s.api.core.v1.PodTemplateSpec",
        fields: &[acted("metadata"), acted("spec")],
    },
    Type {
        name: "io.k8s.api.apps.v1.Deployment",
        fields: &[
            acted("apiVersion"),
            acted("kind"),
            acted("metadata"),
            acted("spec"),
            ignored("status"),
        ],
    },
    Type {
        name: "io.k8s.api.apps.v1.DeploymentSpec",
        fields: &[
            acted("minReadySeconds"),
            acted("paused"),
            acted("progressDeadlineSeconds"),
            acted("replicas"),
            acted("revisionHistoryLimit"),
            acted("selector"),
            acted("strategy"),
            acted("template"),
        ],
    },
    Type {
        name: "io.k8s.api.apps.v1.DeploymentStrategy",
        fields: &[acted("rollingUpdate"), acted("type")],
    },
    Type {
        name: "io.k8s.api.apps.v1.RollingUpdateDeployment",
        fields: &[acted("maxSurge"), acted("maxUnavailable")],
    },
    Type {
        name: "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
        fields: &[acted("matchExpressions"), acted("matchLabels")],
    },
    Type {
        name: "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        fields: &[acted("key"), acted("operator"), acted("values")],
    },
    Type {
        name: "io.k8s.api.batch.v1.Job",
        fields: &[
            acted("apiVersion"),
            acted("kind"),
            acted("metadata"),
            acted("spec"),
            ignored("status"),
        ],
    },
    Type {
        name: "io.k8s.api.batch.v1.JobSpec",
        fields: &[
            acted("activeDeadlineSeconds"),
            acted("backoffLimit"),
            refused("backoffLimitPerIndex", "pods of a Job have no index").any_value(),
            refused("completionMode", "pods of a Job have no index").unless(&["NonIndexed"]),
            acted("completions"),
            refused("managedBy", "there is one controller of Jobs")
                .unless(&["kubernetes.io/job-controller"]),
            refused("manualSelector", "a Job finds its pods by itself"),
            refused("maxFailedIndexes", "pods of a Job have no index").any_value(),
            acted("parallelism"),
            refused("podFailurePolicy", "every failed pod counts against backoffLimit"),
            warned("podReplacementPolicy", "pods that are being deleted are not waited for")
                .unless(&["TerminatingOrFailed"]),
            ignored("scheduling"),
            refused("selector", "a Job finds its pods by itself"),
            refused("successPolicy", "a Job is complete when its completions are reached"),
            refused("suspend", "a Job starts its pods at once"),
            acted("template"),
            warned("ttlSecondsAfterFinished", "a Job is removed when its run ends"),
        ],
    },
];

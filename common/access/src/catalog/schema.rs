//! The shape of the system catalogs: names, columns, OIDs and indexes as PostgreSQL 15 has them.
//!
//! One table of facts, taken from a running PostgreSQL 15, so that psql, pgbench and people find what they
//! expect. Columns are written `name:type`, with `!` for NOT NULL; [`SystemTable::parsed_columns`] takes them
//! apart. Only catalogs that DDL writes to carry indexes; the others stay small or empty.

/// One system catalog as it is created by `init`.
#[derive(Debug)]
pub struct SystemTable {
    /// OID of the catalog in pg_class; also its file number.
    pub oid: u32,
    /// Name within the schema pg_catalog.
    pub name: &'static str,
    /// OID of the row type in pg_type (0 in our pg_type means that no row exists for it).
    pub row_type: u32,
    /// Whether PostgreSQL shares it between databases.
    pub shared: bool,
    /// The columns, `name:type` or `name:type!`, separated by spaces.
    pub columns: &'static str,
    /// Its indexes.
    pub indexes: &'static [SystemIndex],
}

/// One index on a system catalog.
#[derive(Debug)]
pub struct SystemIndex {
    /// OID of the index in pg_class; also its file number.
    pub oid: u32,
    /// Name within the schema pg_catalog.
    pub name: &'static str,
    /// Column numbers of the catalog, in key order, from 1.
    pub keys: &'static [i16],
    /// Whether keys are unique.
    pub unique: bool,
    /// Whether it is the primary key.
    pub primary: bool,
}

/// One column of a system catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemColumn {
    /// Column name.
    pub name: &'static str,
    /// PostgreSQL's internal type name, such as `int4` or `_text`.
    pub type_name: &'static str,
    /// Whether NULL is refused.
    pub not_null: bool,
}

impl SystemTable {
    /// The columns in attribute order.
    pub fn parsed_columns(&self) -> impl Iterator<Item = SystemColumn> {
        parse_columns(self.columns)
    }
}

/// Takes a list of `name:type!` words apart.
pub(super) fn parse_columns(words: &'static str) -> impl Iterator<Item = SystemColumn> {
    words.split_ascii_whitespace().map(|word| {
        let (word, not_null) = match word.strip_suffix('!') {
            Some(rest) => (rest, true),
            None => (word, false),
        };
        let (name, type_name) = word.split_once(':').unwrap_or((word, "text"));
        SystemColumn {
            name,
            type_name,
            not_null,
        }
    })
}

const fn index(
    oid: u32,
    name: &'static str,
    keys: &'static [i16],
    unique: bool,
    primary: bool,
) -> SystemIndex {
    SystemIndex {
        oid,
        name,
        keys,
        unique,
        primary,
    }
}

/// The system catalog called `name`.
pub fn system_table(name: &str) -> Option<&'static SystemTable> {
    SYSTEM_TABLES.iter().find(|table| table.name == name)
}

/// Every system catalog, in the order in which `init` creates them.
pub const SYSTEM_TABLES: &[SystemTable] = &[
    SystemTable {
        oid: 1259,
        name: "pg_class",
        row_type: 83,
        shared: false,
        columns: "oid:oid! relname:name! relnamespace:oid! reltype:oid! reloftype:oid! relowner:oid! \
                  relam:oid! relfilenode:oid! reltablespace:oid! relpages:int4! reltuples:float4! \
                  relallvisible:int4! reltoastrelid:oid! relhasindex:bool! relisshared:bool! \
                  relpersistence:char! relkind:char! relnatts:int2! relchecks:int2! relhasrules:bool! \
                  relhastriggers:bool! relhassubclass:bool! relrowsecurity:bool! relforcerowsecurity:bool! \
                  relispopulated:bool! relreplident:char! relispartition:bool! relrewrite:oid! \
                  relfrozenxid:xid! relminmxid:xid! relacl:_aclitem reloptions:_text \
                  relpartbound:pg_node_tree",
        indexes: &[
            index(2662, "pg_class_oid_index", &[1], true, true),
            index(2663, "pg_class_relname_nsp_index", &[2, 3], true, false),
        ],
    },
    SystemTable {
        oid: 1249,
        name: "pg_attribute",
        row_type: 75,
        shared: false,
        columns: "attrelid:oid! attname:name! atttypid:oid! attstattarget:int4! attlen:int2! attnum:int2! \
                  attndims:int4! attcacheoff:int4! atttypmod:int4! attbyval:bool! attalign:char! \
                  attstorage:char! attcompression:char! attnotnull:bool! atthasdef:bool! \
                  atthasmissing:bool! attidentity:char! attgenerated:char! attisdropped:bool! \
                  attislocal:bool! attinhcount:int4! attcollation:oid! attacl:_aclitem attoptions:_text \
                  attfdwoptions:_text attmissingval:anyarray",
        indexes: &[
            index(2658, "pg_attribute_relid_attnam_index", &[1, 2], true, false),
            index(2659, "pg_attribute_relid_attnum_index", &[1, 6], true, true),
        ],
    },
    SystemTable {
        oid: 1247,
        name: "pg_type",
        row_type: 71,
        shared: false,
        columns: "oid:oid! typname:name! typnamespace:oid! typowner:oid! typlen:int2! typbyval:bool! \
                  typtype:char! typcategory:char! typispreferred:bool! typisdefined:bool! typdelim:char! \
                  typrelid:oid! typsubscript:regproc! typelem:oid! typarray:oid! typinput:regproc! \
                  typoutput:regproc! typreceive:regproc! typsend:regproc! typmodin:regproc! \
                  typmodout:regproc! typanalyze:regproc! typalign:char! typstorage:char! typnotnull:bool! \
                  typbasetype:oid! typtypmod:int4! typndims:int4! typcollation:oid! \
                  typdefaultbin:pg_node_tree typdefault:text typacl:_aclitem",
        indexes: &[
            index(2703, "pg_type_oid_index", &[1], true, true),
            index(2704, "pg_type_typname_nsp_index", &[2, 3], true, false),
        ],
    },
    SystemTable {
        oid: 2615,
        name: "pg_namespace",
        row_type: 10047,
        shared: false,
        columns: "oid:oid! nspname:name! nspowner:oid! nspacl:_aclitem",
        indexes: &[
            index(2684, "pg_namespace_nspname_index", &[2], true, false),
            index(2685, "pg_namespace_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 2610,
        name: "pg_index",
        row_type: 10007,
        shared: false,
        columns: "indexrelid:oid! indrelid:oid! indnatts:int2! indnkeyatts:int2! indisunique:bool! \
                  indnullsnotdistinct:bool! indisprimary:bool! indisexclusion:bool! indimmediate:bool! \
                  indisclustered:bool! indisvalid:bool! indcheckxmin:bool! indisready:bool! \
                  indislive:bool! indisreplident:bool! indkey:int2vector! indcollation:oidvector! \
                  indclass:oidvector! indoption:int2vector! indexprs:pg_node_tree indpred:pg_node_tree",
        indexes: &[
            index(2678, "pg_index_indrelid_index", &[2], false, false),
            index(2679, "pg_index_indexrelid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 2604,
        name: "pg_attrdef",
        row_type: 10001,
        shared: false,
        columns: "oid:oid! adrelid:oid! adnum:int2! adbin:pg_node_tree!",
        indexes: &[
            index(2656, "pg_attrdef_adrelid_adnum_index", &[2, 3], true, false),
            index(2657, "pg_attrdef_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 2606,
        name: "pg_constraint",
        row_type: 10003,
        shared: false,
        columns: "oid:oid! conname:name! connamespace:oid! contype:char! condeferrable:bool! \
                  condeferred:bool! convalidated:bool! conrelid:oid! contypid:oid! conindid:oid! \
                  conparentid:oid! confrelid:oid! confupdtype:char! confdeltype:char! confmatchtype:char! \
                  conislocal:bool! coninhcount:int4! connoinherit:bool! conkey:_int2 confkey:_int2 \
                  conpfeqop:_oid conppeqop:_oid conffeqop:_oid confdelsetcols:_int2 conexclop:_oid \
                  conbin:pg_node_tree",
        indexes: &[
            index(
                2665,
                "pg_constraint_conrelid_contypid_conname_index",
                &[8, 9, 2],
                true,
                false,
            ),
            index(2667, "pg_constraint_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 1262,
        name: "pg_database",
        row_type: 1248,
        shared: true,
        columns: "oid:oid! datname:name! datdba:oid! encoding:int4! datlocprovider:char! \
                  datistemplate:bool! datallowconn:bool! datconnlimit:int4! datfrozenxid:xid! \
                  datminmxid:xid! dattablespace:oid! datcollate:text! datctype:text! daticulocale:text \
                  datcollversion:text datacl:_aclitem",
        indexes: &[
            index(2671, "pg_database_datname_index", &[2], true, false),
            index(2672, "pg_database_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 1260,
        name: "pg_authid",
        row_type: 2842,
        shared: true,
        columns: "oid:oid! rolname:name! rolsuper:bool! rolinherit:bool! rolcreaterole:bool! \
                  rolcreatedb:bool! rolcanlogin:bool! rolreplication:bool! rolbypassrls:bool! \
                  rolconnlimit:int4! rolpassword:text rolvaliduntil:timestamptz",
        indexes: &[
            index(2676, "pg_authid_rolname_index", &[2], true, false),
            index(2677, "pg_authid_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 1261,
        name: "pg_auth_members",
        row_type: 2843,
        shared: true,
        columns: "roleid:oid! member:oid! grantor:oid! admin_option:bool!",
        indexes: &[
            index(2694, "pg_auth_members_role_member_index", &[1, 2], true, true),
            index(2695, "pg_auth_members_member_role_index", &[2, 1], true, false),
        ],
    },
    SystemTable {
        oid: 2601,
        name: "pg_am",
        row_type: 10015,
        shared: false,
        columns: "oid:oid! amname:name! amhandler:regproc! amtype:char!",
        indexes: &[
            index(2651, "pg_am_name_index", &[2], true, false),
            index(2652, "pg_am_oid_index", &[1], true, true),
        ],
    },
    SystemTable {
        oid: 1255,
        name: "pg_proc",
        row_type: 81,
        shared: false,
        columns: "oid:oid! proname:name! pronamespace:oid! proowner:oid! prolang:oid! procost:float4! \
                  prorows:float4! provariadic:oid! prosupport:regproc! prokind:char! prosecdef:bool! \
                  proleakproof:bool! proisstrict:bool! proretset:bool! provolatile:char! proparallel:char! \
                  pronargs:int2! pronargdefaults:int2! prorettype:oid! proargtypes:oidvector! \
                  proallargtypes:_oid proargmodes:_char proargnames:_text proargdefaults:pg_node_tree \
                  protrftypes:_oid prosrc:text! probin:text prosqlbody:pg_node_tree proconfig:_text \
                  proacl:_aclitem",
        indexes: &[
            index(2690, "pg_proc_oid_index", &[1], true, true),
            index(2691, "pg_proc_proname_args_nsp_index", &[2, 20, 3], true, false),
        ],
    },
    SystemTable {
        oid: 2617,
        name: "pg_operator",
        row_type: 10009,
        shared: false,
        columns: "oid:oid! oprname:name! oprnamespace:oid! oprowner:oid! oprkind:char! oprcanmerge:bool! \
                  oprcanhash:bool! oprleft:oid! oprright:oid! oprresult:oid! oprcom:oid! oprnegate:oid! \
                  oprcode:regproc! oprrest:regproc! oprjoin:regproc!",
        indexes: &[],
    },
    SystemTable {
        oid: 2616,
        name: "pg_opclass",
        row_type: 10013,
        shared: false,
        columns: "oid:oid! opcmethod:oid! opcname:name! opcnamespace:oid! opcowner:oid! opcfamily:oid! \
                  opcintype:oid! opcdefault:bool! opckeytype:oid!",
        indexes: &[],
    },
    SystemTable {
        oid: 2753,
        name: "pg_opfamily",
        row_type: 10011,
        shared: false,
        columns: "oid:oid! opfmethod:oid! opfname:name! opfnamespace:oid! opfowner:oid!",
        indexes: &[],
    },
    SystemTable {
        oid: 3456,
        name: "pg_collation",
        row_type: 10095,
        shared: false,
        columns: "oid:oid! collname:name! collnamespace:oid! collowner:oid! collprovider:char! \
                  collisdeterministic:bool! collencoding:int4! collcollate:text collctype:text \
                  colliculocale:text collversion:text",
        indexes: &[
            index(3085, "pg_collation_oid_index", &[1], true, true),
            index(3164, "pg_collation_name_enc_nsp_index", &[2, 7, 3], true, false),
        ],
    },
    SystemTable {
        oid: 1213,
        name: "pg_tablespace",
        row_type: 10056,
        shared: true,
        columns: "oid:oid! spcname:name! spcowner:oid! spcacl:_aclitem spcoptions:_text",
        indexes: &[
            index(2697, "pg_tablespace_oid_index", &[1], true, true),
            index(2698, "pg_tablespace_spcname_index", &[2], true, false),
        ],
    },
    SystemTable {
        oid: 2609,
        name: "pg_description",
        row_type: 10041,
        shared: false,
        columns: "objoid:oid! classoid:oid! objsubid:int4! description:text!",
        indexes: &[index(2675, "pg_description_o_c_o_index", &[1, 2, 3], true, true)],
    },
    SystemTable {
        oid: 2396,
        name: "pg_shdescription",
        row_type: 10062,
        shared: true,
        columns: "objoid:oid! classoid:oid! description:text!",
        indexes: &[],
    },
    SystemTable {
        oid: 2611,
        name: "pg_inherits",
        row_type: 10005,
        shared: false,
        columns: "inhrelid:oid! inhparent:oid! inhseqno:int4! inhdetachpending:bool!",
        indexes: &[],
    },
    SystemTable {
        oid: 3350,
        name: "pg_partitioned_table",
        row_type: 10099,
        shared: false,
        columns: "partrelid:oid! partstrat:char! partnatts:int2! partdefid:oid! partattrs:int2vector! \
                  partclass:oidvector! partcollation:oidvector! partexprs:pg_node_tree",
        indexes: &[],
    },
    SystemTable {
        oid: 2620,
        name: "pg_trigger",
        row_type: 10037,
        shared: false,
        columns: "oid:oid! tgrelid:oid! tgparentid:oid! tgname:name! tgfoid:oid! tgtype:int2! \
                  tgenabled:char! tgisinternal:bool! tgconstrrelid:oid! tgconstrindid:oid! \
                  tgconstraint:oid! tgdeferrable:bool! tginitdeferred:bool! tgnargs:int2! \
                  tgattr:int2vector! tgargs:bytea! tgqual:pg_node_tree tgoldtable:name tgnewtable:name",
        indexes: &[],
    },
    SystemTable {
        oid: 2618,
        name: "pg_rewrite",
        row_type: 10035,
        shared: false,
        columns: "oid:oid! rulename:name! ev_class:oid! ev_type:char! ev_enabled:char! is_instead:bool! \
                  ev_qual:pg_node_tree! ev_action:pg_node_tree!",
        indexes: &[],
    },
    SystemTable {
        oid: 3256,
        name: "pg_policy",
        row_type: 10084,
        shared: false,
        columns: "oid:oid! polname:name! polrelid:oid! polcmd:char! polpermissive:bool! polroles:_oid! \
                  polqual:pg_node_tree polwithcheck:pg_node_tree",
        indexes: &[],
    },
    SystemTable {
        oid: 6104,
        name: "pg_publication",
        row_type: 10107,
        shared: false,
        columns: "oid:oid! pubname:name! pubowner:oid! puballtables:bool! pubinsert:bool! pubupdate:bool! \
                  pubdelete:bool! pubtruncate:bool! pubviaroot:bool!",
        indexes: &[],
    },
    SystemTable {
        oid: 6106,
        name: "pg_publication_rel",
        row_type: 10111,
        shared: false,
        columns: "oid:oid! prpubid:oid! prrelid:oid! prqual:pg_node_tree prattrs:int2vector",
        indexes: &[],
    },
    SystemTable {
        oid: 6237,
        name: "pg_publication_namespace",
        row_type: 10109,
        shared: false,
        columns: "oid:oid! pnpubid:oid! pnnspid:oid!",
        indexes: &[],
    },
    SystemTable {
        oid: 3381,
        name: "pg_statistic_ext",
        row_type: 10031,
        shared: false,
        columns: "oid:oid! stxrelid:oid! stxname:name! stxnamespace:oid! stxowner:oid! stxstattarget:int4! \
                  stxkeys:int2vector! stxkind:_char! stxexprs:pg_node_tree",
        indexes: &[],
    },
    SystemTable {
        oid: 3118,
        name: "pg_foreign_table",
        row_type: 10082,
        shared: false,
        columns: "ftrelid:oid! ftserver:oid! ftoptions:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 1417,
        name: "pg_foreign_server",
        row_type: 10078,
        shared: false,
        columns: "oid:oid! srvname:name! srvowner:oid! srvfdw:oid! srvtype:text srvversion:text \
                  srvacl:_aclitem srvoptions:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 2608,
        name: "pg_depend",
        row_type: 10051,
        shared: false,
        columns: "classid:oid! objid:oid! objsubid:int4! refclassid:oid! refobjid:oid! refobjsubid:int4! \
                  deptype:char!",
        indexes: &[
            index(2673, "pg_depend_depender_index", &[1, 2, 3], false, false),
            index(2674, "pg_depend_reference_index", &[4, 5, 6], false, false),
        ],
    },
    SystemTable {
        oid: 3079,
        name: "pg_extension",
        row_type: 10074,
        shared: false,
        columns: "oid:oid! extname:name! extowner:oid! extnamespace:oid! extrelocatable:bool! \
                  extversion:text! extconfig:_oid extcondition:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 826,
        name: "pg_default_acl",
        row_type: 10088,
        shared: false,
        columns: "oid:oid! defaclrole:oid! defaclnamespace:oid! defaclobjtype:char! defaclacl:_aclitem!",
        indexes: &[],
    },
    SystemTable {
        oid: 2224,
        name: "pg_sequence",
        row_type: 10105,
        shared: false,
        columns: "seqrelid:oid! seqtypid:oid! seqstart:int8! seqincrement:int8! seqmax:int8! seqmin:int8! \
                  seqcache:int8! seqcycle:bool!",
        indexes: &[],
    },
    SystemTable {
        oid: 2605,
        name: "pg_cast",
        row_type: 10043,
        shared: false,
        columns: "oid:oid! castsource:oid! casttarget:oid! castfunc:oid! castcontext:char! \
                  castmethod:char!",
        indexes: &[],
    },
    SystemTable {
        oid: 2612,
        name: "pg_language",
        row_type: 10021,
        shared: false,
        columns: "oid:oid! lanname:name! lanowner:oid! lanispl:bool! lanpltrusted:bool! lanplcallfoid:oid! \
                  laninline:oid! lanvalidator:oid! lanacl:_aclitem",
        indexes: &[],
    },
    SystemTable {
        oid: 3501,
        name: "pg_enum",
        row_type: 10045,
        shared: false,
        columns: "oid:oid! enumtypid:oid! enumsortorder:float4! enumlabel:name!",
        indexes: &[],
    },
    SystemTable {
        oid: 3541,
        name: "pg_range",
        row_type: 10101,
        shared: false,
        columns: "rngtypid:oid! rngsubtype:oid! rngmultitypid:oid! rngcollation:oid! rngsubopc:oid! \
                  rngcanonical:regproc! rngsubdiff:regproc!",
        indexes: &[],
    },
    SystemTable {
        oid: 2964,
        name: "pg_db_role_setting",
        row_type: 10054,
        shared: true,
        columns: "setdatabase:oid! setrole:oid! setconfig:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 3466,
        name: "pg_event_trigger",
        row_type: 10039,
        shared: false,
        columns: "oid:oid! evtname:name! evtevent:name! evtowner:oid! evtfoid:oid! evtenabled:char! \
                  evttags:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 2328,
        name: "pg_foreign_data_wrapper",
        row_type: 10076,
        shared: false,
        columns: "oid:oid! fdwname:name! fdwowner:oid! fdwhandler:oid! fdwvalidator:oid! fdwacl:_aclitem \
                  fdwoptions:_text",
        indexes: &[],
    },
    SystemTable {
        oid: 6100,
        name: "pg_subscription",
        row_type: 6101,
        shared: true,
        columns: "oid:oid! subdbid:oid! subskiplsn:pg_lsn! subname:name! subowner:oid! subenabled:bool! \
                  subbinary:bool! substream:bool! subtwophasestate:char! subdisableonerr:bool! \
                  subconninfo:text! subslotname:name subsynccommit:text! subpublications:_text!",
        indexes: &[],
    },
];

"""Retrieval with captions in many languages: one evaluation for each language of a set.

Codes are spelled as the source spells them, so Japanese is `jp` in XTD10 and `ja` in Crossmodal-3600.
"""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["CROSSMODAL", "ENTRIES", "FLORES", "XTD10"]

_XTD10 = "de en es fr it jp ko pl ru tr zh"
_CROSSMODAL = """
    ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw te th tr uk vi zh
"""
_FLORES = """
    ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab ars_Arab
    ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl
    bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn
    cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt eng_Latn ell_Grek epo_Latn
    est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn gle_Latn
    glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn
    ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva
    kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn
    kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn
    luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn mni_Beng
    khk_Cyrl mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn nya_Latn oci_Latn
    gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pes_Arab pol_Latn por_Latn prs_Arab pbt_Arab quy_Latn ron_Latn
    run_Latn rus_Cyrl sag_Latn san_Deva scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab
    som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml
    tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn tso_Latn tuk_Latn
    tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn
    wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""
XTD10 = tuple(_XTD10.split())
CROSSMODAL = tuple(_CROSSMODAL.split())
FLORES = tuple(_FLORES.split())
"""Languages and their scripts as FLORES-200 writes them."""

_retrieval = partial(Entry, kind="retrieval", type="retrieval", main_metric="mean_recall@1")
_XTD_NOTE = (
    "800 of the 1,000 images are of COCO's train2014, 200 of val2014: models that were tuned on COCO have seen them."
)

ENTRIES: tuple[Entry, ...] = (
    _retrieval(
        name="crossmodal3600",
        title="Crossmodal-3600",
        test=3_600,
        captions=3_600,
        chance=1 / 3_600,
        aliases=("xm3600",),
        languages=CROSSMODAL,
        source="Thapliyal et al. 2022, google.github.io/crossmodal-3600",
        licence="CC BY 4.0 (captions)",
        notes=("Only the first caption of each image is used, as the published tables do.",),
    ),
    _retrieval(
        name="multilingual_mscoco_captions",
        title="Multilingual MSCOCO",
        test=1_000,
        captions=1_000,
        chance=1 / 1_000,
        languages=XTD10,
        source="github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10 (de, fr: MIC; jp: STAIR)",
        notes=(_XTD_NOTE, "The same images and captions as XTD10."),
    ),
    _retrieval(
        name="xtd10",
        title="XTD10",
        test=1_000,
        captions=1_000,
        chance=1 / 1_000,
        languages=XTD10,
        source="Aggarwal and Kale 2020, github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10",
        notes=(_XTD_NOTE,),
    ),
    _retrieval(
        name="xtd200",
        title="XTD200",
        test=1_000,
        captions=1_000,
        chance=1 / 1_000,
        languages=FLORES,
        source="Visheratin 2023, github.com/visheratin/nllb-clip",
        notes=(_XTD_NOTE, "XTD10's captions translated by machine."),
    ),
    _retrieval(
        name="flickr30k-200",
        title="Flickr30k-200",
        test=1_000,
        captions=1_000,
        chance=1 / 1_000,
        languages=FLORES,
        source="Visheratin 2023, github.com/visheratin/nllb-clip",
        notes=("Translated by machine.",),
    ),
)
